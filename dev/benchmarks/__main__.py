"""`python -m dev.benchmarks`, or `make bench`: measure, print, write and draw."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from dev.benchmarks import chart, command, machine, results, tables
from dev.benchmarks.arena import servers
from dev.benchmarks.catalogue import CONTENDERS
from dev.benchmarks.contender import Contender
from dev.benchmarks.rounds import Outcome, order, play, unavailable

NAME = "benchmarks.json"
BUSY = 0.5
"""Load average, over the last minute, above which something else is at work."""
_EPILOG = """\
examples:
  make bench
  make bench args="--rounds 9 --only worker,faststream"
  make bench args="--publish"      # and show the figures in docs/performance.md
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if the worker failed a run, or did not do all of it once."""
    options = _parser().parse_args(arguments)
    if options.list:
        for contender in CONTENDERS.values():
            print(f"{contender.name:<16}{contender.label}")
        return 0
    return command.run(lambda console: _benchmark(options, console), soft_wrap=False)


def _benchmark(options: argparse.Namespace, console: Console) -> int:
    chosen = [CONTENDERS[name] for name in options.only]
    skipped = {each.name: why for each in chosen if (why := unavailable(each))}
    contenders = [each for each in chosen if each.name not in skipped]
    for name, why in skipped.items():
        console.print(f"{name} does not take part: {why}")
    document = uvloop.run(_measure(options, contenders, skipped, console))
    _show(document, Console(width=None if sys.stdout.isatty() else 160))

    def write_into(folder: Path) -> list[Path]:
        data = command.write_json(folder / NAME, document, indent=2)
        return [data, *chart.draw(document, folder)]

    command.write(options, console, write_into)
    worker = [each for each in document["contenders"] if each["name"].startswith("worker")]
    return 1 if any(each["remarks"] for each in worker) else 0


async def _measure(
    options: argparse.Namespace,
    contenders: list[Contender],
    skipped: dict[str, str],
    console: Console,
) -> dict[str, Any]:
    started = datetime.now(UTC)
    load = os.getloadavg()[0]
    if load > BUSY:
        console.print(f"the machine is busy (load {load:.1f}): ratios will spread widely")
    begin = time.monotonic()
    turns = order(contenders, rounds=options.rounds, seed=options.seed)

    def tell(outcome: Outcome) -> None:
        run = outcome.run
        what = f"{run.rate:>8,.0f}/s  {run.tally}" if run else f"failed: {outcome.failure}"
        spent = time.monotonic() - begin
        console.print(f"{spent:5.0f} s  round {outcome.round}  {outcome.contender:<16}{what}")

    async with servers() as place:
        outcomes = await play(turns, place, commands=options.commands, seed=options.seed, tell=tell)
        versions = await machine.server_versions(place)
    return results.document(
        contenders,
        outcomes,
        skipped=skipped,
        started_on=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begin),
        revision=machine.revision(),
        load_average_before=round(load, 2),
        machine=machine.machine(),
        servers=versions,
        libraries=machine.libraries(),
        settings={
            "rounds": options.rounds,
            "commands": options.commands,
            "seed": options.seed,
        },
    )


def _show(document: dict[str, Any], console: Console) -> None:
    console.print(tables.for_terminal(tables.contenders_sheet(document)))
    console.print(tables.for_terminal(tables.targets_sheet(document)))
    for remark in tables.remarks(document):
        console.print(remark)


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "dev.benchmarks",
        "Measure the worker beside its peers: how fast each drains a full queue.",
        _EPILOG,
        rounds=4,
    )
    parser.add_argument(
        "--commands",
        type=command.positive,
        default=20_000,
        help="commands in the queue of a fast contender; a slow one gets an eighth (20000)",
    )
    parser.add_argument(
        "--only",
        type=_names,
        default=[name for name, each in CONTENDERS.items() if not each.by_name],
        metavar="NAME,NAME",
        help="only these contenders",
    )
    parser.add_argument("--seed", type=int, default=1, help="of orders and commands (1)")
    parser.add_argument("--list", action="store_true", help="print the contenders and stop")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in CONTENDERS:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no contender; there are {', '.join(CONTENDERS)}"
            )
    return names


if __name__ == "__main__":
    sys.exit(main())
