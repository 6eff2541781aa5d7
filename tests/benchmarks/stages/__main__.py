"""`python -m tests.benchmarks.stages`, or `make bench-stages`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from tests.benchmarks import machine
from tests.benchmarks.arena import NoServers, fresh_arena, servers
from tests.benchmarks.commands import CHANGE, CREATE
from tests.benchmarks.contender import ROOT
from tests.benchmarks.stages import report
from tests.benchmarks.stages.run import measure

NAME = "stages.json"
SCHEMA = 1
WORKLOADS = {"create": CREATE, "change": CHANGE}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        document = uvloop.run(_measure(options, console))
    except NoServers as error:
        console.print(f"error: {error}")
        return 2
    print(report.markdown(document))
    for folder in [options.output, *([ROOT / "docs" / "benchmarks"] if options.publish else [])]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(json.dumps(document, indent=1) + "\n")
        console.print(f"wrote {os.path.relpath(folder / NAME)}")
    if options.publish:
        subprocess.run([sys.executable, "-m", "docs.generate"], cwd=ROOT, check=True)
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
            "measured_on": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.machine(),
            "servers": await machine.server_versions(place),
            "libraries": machine.libraries(),
            "revision": machine.revision(),
            "rounds": rounds,
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.stages",
        description="Measure the CPU time of a command by stage, without a broker.",
        epilog='example:\n  make bench-stages args="--rounds 5 --publish"',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured (3)")
    parser.add_argument("--commands", type=int, default=10_000, help="in each run (10000)")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks"), help="folder to write to (benchmarks)"
    )
    parser.add_argument("--publish", action="store_true", help="also update the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
