"""`python -m tests.benchmarks.latency`, or `make bench-latency`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console

from tests.benchmarks import machine
from tests.benchmarks.arena import NoServers, servers
from tests.benchmarks.catalogue import CONTENDERS
from tests.benchmarks.contender import ROOT
from tests.benchmarks.latency import plot, report
from tests.benchmarks.latency.turn import Turn, schedules, take
from tests.benchmarks.process import end_in_order

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
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    path = options.output / NAME
    kept = json.loads(path.read_text()) if options.add and path.exists() else {}
    turns = [Turn.model_validate(turn) for turn in kept.get("turns", [])]
    end_in_order()
    try:
        circumstances = asyncio.run(_measure(options, turns, console))
    except NoServers as error:
        console.print(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.markdown(turns))
    document = {
        "schema": SCHEMA,
        **circumstances,
        "revision": machine.revisions(kept.get("revision")),
        "turns": [turn.model_dump() for turn in turns],
    }
    for folder in [options.output, *([ROOT / "docs" / "benchmarks"] if options.publish else [])]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(json.dumps(document, indent=1) + "\n")
        for written in [folder / NAME, *plot.draw(report.rows(turns), folder)]:
            console.print(f"wrote {os.path.relpath(written)}")
    if options.publish:
        subprocess.run([sys.executable, "-m", "docs.generate"], cwd=ROOT, check=True)
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
        return {
            "measured_on": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.machine(),
            "servers": await machine.server_versions(place),
            "libraries": machine.libraries(),
        }


def _told(turn: Turn) -> str:
    what = f"round {turn.round}  {turn.arrivals:<9}{turn.rate:>6,.0f}/s  {turn.contender:<12}"
    if turn.latency is None:
        return f"{what}failed: {turn.failure}"
    behind = "" if turn.kept_up else f"  only {turn.achieved:,.0f}/s"
    return (
        f"{what}p50 {turn.latency.p50 * 1e3:,.1f} ms  p99 {turn.latency.p99 * 1e3:,.1f} ms{behind}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.latency",
        description="Measure how long commands take at loads that do not wait for answers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured (3)")
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
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks"), help="folder to write to (benchmarks)"
    )
    parser.add_argument("--add", action="store_true", help="to the rounds that are there already")
    parser.add_argument("--publish", action="store_true", help="also update the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
