"""`python -m dev.benchmarks.latency`, or `make bench-latency`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from dev.benchmarks import command, machine
from dev.benchmarks.arena import servers
from dev.benchmarks.catalogue import CONTENDERS
from dev.benchmarks.latency import plot, report
from dev.benchmarks.latency.turn import Turn, schedules, take

NAME = "latency.json"
SCHEMA = 1
_EPILOG = """\
examples:
  make bench-latency
  make bench-latency args="--rounds 1 --rates 100,300 --only worker"
  make bench-latency args="--rounds 2 --add --publish"   # two rounds more, and into the docs
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if the worker failed a turn or could not keep up."""
    options = _parser().parse_args(arguments)
    return command.run(lambda console: _latency(options, console))


def _latency(options: argparse.Namespace, console: Console) -> int:
    kept = command.kept(options, NAME)
    turns = [Turn.model_validate(turn) for turn in kept.get("turns", [])]
    circumstances = asyncio.run(_measure(options, turns, console))
    print(report.markdown(turns))
    document = {
        "schema": SCHEMA,
        **circumstances,
        "revision": machine.revisions(kept.get("revision")),
        "turns": [turn.model_dump() for turn in turns],
    }

    def write_into(folder: Path) -> list[Path]:
        data = command.write_json(folder / NAME, document)
        return [data, *plot.draw(report.rows(turns), folder)]

    command.write(options, console, write_into)
    ours = [turn for turn in turns if turn.contender.startswith("worker")]
    return 0 if all(turn.kept_up for turn in ours) else 1


async def _measure(
    options: argparse.Namespace, turns: list[Turn], console: Console
) -> dict[str, Any]:
    """Append one turn after the other; return what they were measured on."""
    first = max((turn.round for turn in turns), default=0) + 1
    async with servers() as place:
        for number in range(first, first + options.rounds):
            planned = [
                (CONTENDERS[name], schedule)
                for name in options.only
                for schedule in schedules(
                    options.arrivals,
                    options.rates,
                    seconds=options.seconds,
                    warm_up=options.warm_up,
                    seed=options.seed + number,
                )
            ]
            # So that none always has the quiet minute.
            Random(options.seed + number).shuffle(planned)
            for contender, schedule in planned:
                turn = await take(
                    contender, place, schedule, number=number, seed=options.seed + number
                )
                turns.append(turn)
                console.print(_told(turn))
        return await command.circumstances(place)


def _told(turn: Turn) -> str:
    what = f"round {turn.round}  {turn.arrivals:<9}{turn.rate:>6,.0f}/s  {turn.contender:<12}"
    if turn.latency is None:
        return f"{what}failed: {turn.failure}"
    behind = "" if turn.kept_up else f"  only {turn.achieved:,.0f}/s"
    return (
        f"{what}p50 {turn.latency.p50 * 1e3:,.1f} ms  p99 {turn.latency.p99 * 1e3:,.1f} ms{behind}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "dev.benchmarks.latency",
        "Measure how long commands take at loads that do not wait for answers.",
        _EPILOG,
        rounds=3,
    )
    parser.add_argument(
        "--rates",
        type=lambda text: [float(rate) for rate in text.split(",")],
        default=[50, 200, 500, 1_000],
        metavar="N,N",
        help="commands per second (50,200,500,1000)",
    )
    parser.add_argument(
        "--arrivals",
        type=lambda text: text.split(","),
        default=["constant", "poisson"],
        help="constant, poisson or both (both)",
    )
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=["worker", "faststream"],
        metavar="NAME,NAME",
        help="contenders, as `make bench args=--list` names them (worker,faststream)",
    )
    parser.add_argument("--seconds", type=float, default=8, help="measured in each turn (8)")
    parser.add_argument("--warm-up", type=float, default=3, help="seconds before that (3)")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals, commands, orders (1)")
    parser.add_argument("--add", action="store_true", help="to the rounds that are there already")
    return parser


if __name__ == "__main__":
    sys.exit(main())
