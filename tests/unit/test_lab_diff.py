"""Two results are told apart where they differ, and only there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.lab_results import exponential, make_point, make_result
from worker.cli import exit_code
from worker.core.errors import Misconfigured
from worker.lab.diff import compare
from worker.lab.results import Result, save_result


def measured(hold: float, *, seed: int = 1, size: int = 6, clients: int | None = None) -> Result:
    rate = 200 if clients is None else None
    holds = exponential(hold)
    points = [
        make_point(size, rate=rate, clients=clients, holds=holds, repeat=n, seed=seed)
        for n in (0, 1, 2)
    ]
    return make_result(points)


def verdicts(before: Result, after: Result) -> dict[str, str]:
    return {each.metric: each.verdict for each in compare(before, after)}


def test_a_result_does_not_differ_from_itself() -> None:
    result = measured(0.02)
    assert set(verdicts(result, result).values()) == {"no difference"}
    assert {each.change for each in compare(result, result)} == {0.0}


def test_chance_is_no_difference() -> None:
    found = verdicts(measured(0.018, seed=1), measured(0.018, seed=2))
    assert found["throughput"] == "no difference"
    assert found["hold mean"] == "no difference"


def test_slower_holds_are_worse_and_quicker_ones_better() -> None:
    quick, slow = measured(0.012), measured(0.024)
    there = verdicts(quick, slow)
    assert there["wait p99"] == there["latency p99"] == there["hold mean"] == "worse"
    back = verdicts(slow, quick)
    assert back["wait p99"] == back["latency p99"] == back["hold mean"] == "better"


def test_more_work_is_better() -> None:
    found = compare(measured(0.02, clients=12), measured(0.01, clients=12))
    throughput = next(each for each in found if each.metric == "throughput")
    assert throughput.verdict == "better"
    assert throughput.interval.low > 200
    assert throughput.change == pytest.approx(1.0, abs=0.1)


def test_settings_that_only_one_has_are_refused_when_there_are_no_others() -> None:
    with pytest.raises(Misconfigured, match="no setting in common"):
        compare(measured(0.02, size=6), measured(0.02, size=7))


def test_programs_get_a_line_for_each_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    save_result(measured(0.012), tmp_path / "a.json")
    save_result(measured(0.024), tmp_path / "b.json")
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    monkeypatch.setattr(sys, "argv", ["worker", "lab", "diff", *files])
    assert exit_code() == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {line["metric"]: line["verdict"] for line in lines}["wait p99"] == "worse"
