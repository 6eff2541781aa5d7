"""`python -m dev.soak`, or `make soak`: a day's worth of commands, and what has grown."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from dev.benchmarks import machine
from dev.benchmarks.arena import NoServers, servers
from dev.benchmarks.command import terminated_as_interrupted
from dev.benchmarks.contender import ROOT
from dev.soak import plot
from dev.soak.run import Plan, soak
from dev.soak.verdict import as_json, figures, judge

NAME = "soak.json"
DAY = 8_640_000
"""Commands in 24 hours of 100 a second."""
RATE = 4_500
"""Commands a second: about what a worker can do on two cores, which it shares with all the rest."""
LONG = Plan(DAY, retention_seconds=30, stream_bytes=200_000_000, sample_seconds=2, rate=RATE)
SHORT = replace(LONG, retention_seconds=1.5, sample_seconds=0.25, vacuum=True)
SHORT_COMMANDS = 100_000
"""Up to so many, things age faster, and are vacuumed at each look."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if something grows, or was not answered once."""
    options = _parser().parse_args(arguments)
    plan = SHORT if options.commands <= SHORT_COMMANDS else LONG
    try:
        with terminated_as_interrupted():
            asked = replace(plan, commands=options.commands, rate=options.rate)
            document = uvloop.run(_measure(asked))
    except NoServers as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(figures(document))
    for folder in [options.output, *([ROOT / "docs" / "benchmarks"] if options.publish else [])]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(json.dumps(document) + "\n")
        for written in [folder / NAME, *plot.draw(document, folder)]:
            print(f"wrote {os.path.relpath(written)}", file=sys.stderr)
    if options.publish:
        subprocess.run([sys.executable, "-m", "dev.docs.generate"], cwd=ROOT, check=True)
    flat = all(flatness["flat"] for flatness in document["verdict"].values())
    return 0 if flat and not document["answers"]["missing"] and not document["exit_code"] else 1


async def _measure(plan: Plan) -> dict[str, Any]:
    async with servers() as place:
        with tempfile.TemporaryDirectory() as folder:
            found = await soak(place, plan, Path(folder) / "worker.log")
        return {
            "measured_on": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.machine(),
            "servers": await machine.server_versions(place),
            "revision": machine.revisions(None),
            "commands": plan.commands,
            "retention_seconds": plan.retention_seconds,
            "stream_bytes": plan.stream_bytes,
            "seconds": round(found.seconds, 1),
            "rate": round(plan.commands / found.seconds, 1),
            "answers": {
                "events": found.events,
                "missing": abs(plan.commands - found.events),
            },
            "exit_code": found.exit_code,
            "verdict": as_json(judge(found.samples)),
            "samples": found.samples,
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.soak", description=__doc__)
    parser.add_argument("--commands", type=int, default=DAY, help=f"how many ({DAY})")
    parser.add_argument("--rate", type=float, default=RATE, help=f"commands a second ({RATE})")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks"), help="folder to write to (benchmarks)"
    )
    parser.add_argument("--publish", action="store_true", help="also update the docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
