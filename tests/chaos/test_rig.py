"""A short run of the chaos rig; the long ones are `make chaos minutes=30`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

FAULTS = (
    "kill-in-transaction",
    "kill-committed",
    "broker-kill",
    "database-restart",
    "cut-after-commit",
    "duplicates",
)


@pytest.mark.faults
@pytest.mark.timeout(240)
async def test_a_short_run_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.rig", "--folder", str(folder)),
        *("--minutes", "0.1", "--seed", "7", "--rate", "100", "--workers", "1,2"),
        *("--faults", "7"),
        *(word for name in FAULTS for word in ("--only", name)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    words = output.decode()
    assert process.returncode in {0, 1}, words
    found = json.loads((folder / "verdict.json").read_text())
    commands = found["commands"]
    assert commands["confirmed"] > 500, words
    for kind in ("lost", "duplicated", "untrue", "stuck"):
        assert commands[kind] == 0, words
    assert found["without_id"]["lost"] == [], words
    assert found["unexpected_endings"] == [], words
    assert found["faults"]["missed"] == [], words
    assert set(found["faults"]["by_kind"]) == set(FAULTS), words
    # How fast is for a machine of one's own to say; here it is enough that all came back.
    assert None not in found["recovery"]["slowest_by_kind"].values(), words
    # Kept, so that a failure can be understood.
    assert {"schedule.json", "timeline.jsonl", "book", "verdict.txt"} <= {
        path.name for path in folder.iterdir()
    }
