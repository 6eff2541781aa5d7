"""`python -m dev.benchmarks.stages`, or `make bench-stages`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from rich.console import Console

from dev.benchmarks import command, machine
from dev.benchmarks.arena import fresh_arena, servers
from dev.benchmarks.commands import CHANGE, CREATE
from dev.benchmarks.stages import report
from dev.benchmarks.stages.run import measure

NAME = "stages.json"
SCHEMA = 1
WORKLOADS = {"create": CREATE, "change": CHANGE}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _parser().parse_args(arguments)
    return command.run(lambda console: _stages(options, console))


def _stages(options: argparse.Namespace, console: Console) -> int:
    document = uvloop.run(_measure(options, console))
    print(report.markdown(document))
    command.write(options, console, lambda folder: [command.write_json(folder / NAME, document)])
    return 0


async def _measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    rounds = []
    async with servers() as place:
        for number in range(1, options.rounds + 1):
            for what in report.COLUMNS:
                workload, _, group = what.partition(", ")
                async with fresh_arena(place) as arena:
                    stages = await measure(
                        arena,
                        WORKLOADS[workload],
                        commands=options.commands if group != "1" else options.commands // 5,
                        group=int(group),
                        seed=number,
                    )
                rounds.append({"round": number, "what": what, "stages": stages})
                console.print(f"round {number}  {what:<12}{sum(stages.values()):8,.0f} µs")
        return {
            "schema": SCHEMA,
            **await command.circumstances(place),
            "revision": machine.revision(),
            "rounds": rounds,
        }


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "dev.benchmarks.stages",
        "Measure the CPU time of a command by stage, without a broker.",
        'example:\n  make bench-stages args="--rounds 5 --publish"',
        rounds=3,
    )
    parser.add_argument("--commands", type=int, default=10_000, help="in each run (10000)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
