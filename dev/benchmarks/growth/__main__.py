"""`python -m dev.benchmarks.growth`, or `make bench-growth`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from dev.benchmarks import command, machine
from dev.benchmarks.arena import servers
from dev.benchmarks.growth import plot, report
from dev.benchmarks.growth.parts import PARTS, Plan
from dev.benchmarks.growth.station import Drained

NAME = "growth.json"
SCHEMA = 1
_EPILOG = """\
examples:
  make bench-growth
  make bench-growth args="--part rows --rows 0,100000 --rounds 1"
  make bench-growth args="--part rows --keep filled"       # filling takes longest: keep it
  make bench-growth args="--part lanes --add --publish"    # beside what was measured before
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if the worker failed, or did not do everything once."""
    options = _parser().parse_args(arguments)
    return command.run(lambda console: _growth(options, console))


def _growth(options: argparse.Namespace, console: Console) -> int:
    kept = command.kept(options, NAME)
    turns = [Drained.model_validate(turn) for turn in kept.get("turns", [])]
    circumstances = uvloop.run(_measure(options, turns, console))
    print(report.markdown(turns))
    document = {
        "schema": SCHEMA,
        **circumstances,
        "revision": machine.revisions(kept.get("revision")),
        "turns": [turn.model_dump() for turn in turns],
    }

    def write_into(folder: Path) -> list[Path]:
        data = command.write_json(folder / NAME, document, indent=None)
        return [data, *plot.draw(turns, folder)]

    command.write(options, console, write_into)
    return 1 if any(turn.fault for turn in turns) else 0


async def _measure(
    options: argparse.Namespace, turns: list[Drained], console: Console
) -> dict[str, Any]:
    """Append one turn after the other; return what they were measured on."""

    def tell(turn: Drained) -> None:
        turns.append(turn)
        what = f"{turn.part} {turn.size:,}, {turn.keys}"
        console.print(
            f"round {turn.round}  {what:<34}{turn.rate:>8,.0f}/s  "
            f"{turn.peak_bytes / 1e6:,.0f} MB  {turn.fault or ''}"
        )

    async with servers() as place:
        for part in options.part:
            done = [turn.round for turn in turns if turn.part == part]
            plan = Plan(
                first_round=max(done, default=0) + 1,
                rounds=1 if part == "backlog" else options.rounds,
                commands=options.commands,
                rows=options.rows,
                backlog=options.backlog,
                seed=options.seed,
                keep=options.keep,
            )
            await PARTS[part](place, plan, tell)
        return await command.circumstances(place)


def _parser() -> argparse.ArgumentParser:
    parser = command.make_parser(
        "dev.benchmarks.growth",
        "Measure the worker on full tables, before a long queue (once), with many lanes.",
        _EPILOG,
        rounds=3,
    )
    parser.add_argument(
        "--part",
        type=_parts,
        default=[*PARTS],
        help=f"{', '.join(PARTS)}; several with commas (all)",
    )
    parser.add_argument("--commands", type=int, default=20_000, help="in each drain (20000)")
    parser.add_argument(
        "--rows",
        type=lambda text: [int(count) for count in text.split(",")],
        default=[0, 10_000, 1_000_000, 10_000_000],
        metavar="N,N",
        help="rows in users and in the ledger (0,10000,1000000,10000000)",
    )
    parser.add_argument("--backlog", type=int, default=1_000_000, help="the long queue (1000000)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of turns (1)")
    parser.add_argument(
        "--keep", metavar="NAME", help="keep the filled databases NAME_10000 …, and use them again"
    )
    parser.add_argument("--add", action="store_true", help="to what is there already")
    return parser


def _parts(text: str) -> list[str]:
    for part in text.split(","):
        if part not in PARTS:
            raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(PARTS)}")
    return text.split(",")


if __name__ == "__main__":
    sys.exit(main())
