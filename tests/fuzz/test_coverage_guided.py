"""What the coverage-guided search begins with keeps the rules, and a short search finds nothing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dev.benchmarks.contender import ROOT
from dev.fuzz.target import check, packed, seeds

pytestmark = pytest.mark.long


def test_every_input_to_begin_with_keeps_the_rules() -> None:
    count = 0
    for seed in seeds():
        check(seed)
        count += 1
    assert count > 2_000


@pytest.mark.parametrize("length", range(4))
def test_an_input_may_be_cut_anywhere(length: int) -> None:
    check(packed(b"{}", b"\0" * 14)[:length])


@pytest.mark.skipif(not importlib.util.find_spec("atheris"), reason="atheris has no wheel here")
def test_a_short_search_finds_nothing_and_counts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dev.fuzz", "--executions", "4000", "--minutes", "0.5"]
    run = subprocess.run(
        [*command, "--folder", str(tmp_path)], cwd=ROOT, capture_output=True, check=False, text=True
    )

    assert run.returncode == 0, run.stderr[-2_000:]
    result = json.loads(run.stdout)
    assert result["findings"] == 0
    assert result["executions"] >= 4_000
    assert result["edges"] > 300
