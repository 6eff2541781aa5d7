"""Publishes runs in `docs/guarantees.md`: `python -m dev.chaos.publish FOLDER …`.

What they say goes into `docs/chaos.json`, in place of what was there; `make docs` writes the page.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dev.chaos.result import KINDS, order_is_promised

PUBLISHED = Path(__file__).parents[2] / "docs" / "chaos.json"


def main() -> None:
    """Take over the verdicts of these runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    folders = parser.parse_args().folders
    runs = [json.loads((folder / "verdict.json").read_text()) for folder in folders]
    PUBLISHED.write_text(json.dumps(runs, indent=1) + "\n")


def figures(runs: Sequence[Mapping[str, Any]]) -> str:
    """The runs as Markdown."""
    if not runs:
        return "No run is published yet.\n"
    faults = sum((Counter(run["faults"]["by_kind"]) for run in runs), Counter[str]())
    return "\n".join(
        [
            "| | " + " | ".join(f"seed {run['seed']}" for run in runs) + " |",
            "|---|" + "---:|" * len(runs),
            *(_row(name, [look(run) for run in runs]) for name, look in _ROWS.items()),
            "",
            "Faults of all these runs: "
            + ", ".join(f"{count} {name}" for name, count in sorted(faults.items()))
            + ".",
            "",
        ]
    )


def _row(name: str, values: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(values) + " |"


def _reordered(run: Mapping[str, Any]) -> str:
    if not order_is_promised(run["workers"], run.get("partitions", 1)):
        return "not promised"
    return f"{run['commands']['reordered']:,}"


def _count(section: str, name: str) -> Any:
    return lambda run: f"{run[section][name]:,}"


_ROWS: Mapping[str, Any] = {
    "minutes": lambda run: f"{run['minutes']:.0f}",
    "processes of each worker": lambda run: " + ".join(map(str, run["workers"])),
    "partitions": lambda run: f"{run.get('partitions', 1)}",
    "faults": _count("faults", "injected"),
    "commands attempted": _count("commands", "attempted"),
    "confirmed": _count("commands", "confirmed"),
    "done": _count("commands", "done"),
    "refused": _count("commands", "refused"),
    "dead-lettered": _count("commands", "dead_lettered"),
    **{f"**{kind}**": _count("commands", kind) for kind in KINDS if kind != "reordered"},
    "**reordered**": _reordered,
    "without an id: confirmed": _count("without_id", "confirmed"),
    "without an id: lost": lambda run: f"{len(run['without_id']['lost'])}",
    "well again, median": lambda run: f"{run['recovery']['median_seconds']:.1f} s",
    "well again, longest": lambda run: f"{run['recovery']['max_seconds']:.1f} s",
    "later than 10 s": lambda run: f"{len(run['recovery']['late'])}",
}


if __name__ == "__main__":
    main()
