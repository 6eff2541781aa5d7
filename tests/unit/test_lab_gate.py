"""Limits are kept or not, by the numbers; what cannot be trusted keeps none."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.lab_results import make_point, make_result
from worker.cli import exit_code
from worker.core.errors import Misconfigured
from worker.lab.gate import GateLimits, judge
from worker.lab.results import Result, load_result, save_result
from worker.lab.units import parse_seconds, show_number, show_seconds, show_share


@pytest.fixture(scope="module")
def result() -> Result:
    points = [make_point(size, rate=200, repeat=n) for size in (6, 12) for n in (0, 1)]
    return make_result(points)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (GateLimits(wait_p99_seconds=1.0), True),
        (GateLimits(wait_p99_seconds=0.001), False),
        (GateLimits(latency_p99_seconds=1.0, timeouts=0, failed=0, dropped=0), True),
        (GateLimits(latency_p99_seconds=0.001), False),
        (GateLimits(throughput_per_second=150), True),
        (GateLimits(throughput_per_second=250), False),
    ],
)
def test_a_limit_is_kept_or_not(result: Result, limits: GateLimits, kept: bool) -> None:
    verdicts = judge(result, limits)
    assert len(verdicts) == 4 * len(limits.model_dump(exclude_none=True))
    assert all(verdict.kept for verdict in verdicts) is kept


def test_the_bound_itself_is_kept(result: Result) -> None:
    point = result.points[0]
    one = make_result([point])
    assert judge(one, GateLimits(wait_p99_seconds=point.wait.seconds.p99))[0].kept
    assert not judge(one, GateLimits(wait_p99_seconds=point.wait.seconds.p99 - 1e-6))[0].kept


def test_only_the_pool_that_was_asked_for_is_judged(result: Result) -> None:
    verdicts = judge(result, GateLimits(wait_p99_seconds=0.005), pool_size=12)
    assert {verdict.pool_size for verdict in verdicts} == {12}
    assert all(verdict.kept for verdict in verdicts)
    with pytest.raises(Misconfigured, match="no point with pool size 7, only: 6, 12"):
        judge(result, GateLimits(timeouts=0), pool_size=7)


def test_a_failed_check_shuts_the_gate_even_if_nobody_analysed_the_result(result: Result) -> None:
    point = result.points[0]
    pool = point.pool.model_copy(update={"busy_mean": point.pool.busy_mean * 2})
    doubtful = make_result([point.model_copy(update={"pool": pool})])
    verdicts = judge(doubtful, GateLimits(timeouts=0))
    assert [verdict.limit for verdict in verdicts if not verdict.kept] == ["check:littles-law"]


def test_half_a_run_shuts_the_gate(result: Result) -> None:
    verdicts = judge(make_result(result.points, partial=True), GateLimits(timeouts=0))
    assert [verdict.limit for verdict in verdicts if not verdict.kept] == ["check:complete"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["worker", "lab", *arguments])
    return exit_code()


def test_the_exit_code_tells_ci(
    result: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    save_result(result, tmp_path / "result.json")
    assert run(monkeypatch, "gate", str(tmp_path), "--p99-wait", "1s", "--timeouts", "0") == 0
    told = capfd.readouterr()
    assert all(json.loads(line)["kept"] for line in told.out.splitlines())
    assert "the gate is open: 8 limits kept" in told.err
    assert run(monkeypatch, "gate", str(tmp_path), "--p99-wait", "1ms", "--pool-size", "6") == 3
    assert "pool 6+0, 200/s, repeat 1: p99 of the wait" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--timeouts", "0"], "cannot be read"),
        ([], "give at least one limit"),
        (["--p99-wait", "20"], "--p99-wait 20: is no time"),
    ],
)
def test_wrong_usage_ends_with_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, "gate", str(tmp_path / "none.json"), *arguments) == 2
    assert words in capfd.readouterr().err


def test_a_result_survives_its_file(result: Result, tmp_path: Path) -> None:
    save_result(result, tmp_path / "result.json")
    assert load_result(tmp_path) == result
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Invalid JSON"),
        ('{"schema_version": 2}', "its schema_version is 2, this version of the worker reads 1"),
        ('{"schema_version": 1, "kind": "walk"}', "/kind: "),
    ],
)
def test_a_file_that_is_no_result_is_refused_by_name(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(text)
    with pytest.raises(Misconfigured) as refused:
        load_result(file)
    assert str(file) in str(refused.value)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("20ms", 0.02), ("1.5 s", 1.5), ("250us", 0.00025), ("2m", 120)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "20", "-1ms", "ms", "1h", "1e3s", "1 ms ms"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_seconds(text)


def test_numbers_are_shown_with_three_digits() -> None:
    shown = [show_seconds(value) for value in (1e-6, 0.00012345, 0.0123456, 0.99999, 61.23)]
    assert shown == ["0 s", "123 µs", "12.3 ms", "1 s", "61.2 s"]
    assert [show_number(value) for value in (0, 0.0567, 3, 1234.5)] == ["0", "0.0567", "3", "1,234"]
    assert show_share(0.0256) == "2.56 %"
