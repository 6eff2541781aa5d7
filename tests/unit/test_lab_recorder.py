"""What became of the work is counted by its intended begin, within the window and nowhere else."""

from __future__ import annotations

from time import monotonic_ns

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.lab.recorder import (
    SLOTS,
    UNFINISHED,
    MeasuredWindow,
    WorkRecorder,
    jain_index,
    name_of,
)

SECOND = 1_000_000_000


@pytest.fixture
def window() -> MeasuredWindow:
    """It began a second ago and has a second to go."""
    now = monotonic_ns()
    return MeasuredWindow(now - SECOND, now + SECOND)


def test_latency_counts_from_the_intended_begin(window: MeasuredWindow) -> None:
    recorder = WorkRecorder(window)
    intended = window.from_ns + SECOND // 2
    recorder.started(intended)
    recorder.ended(intended)
    latency = recorder.report(window).latency_seconds
    assert latency.count == 1
    assert 0.5 <= latency.p50 < 0.7


def test_the_warm_up_is_not_counted_but_its_ends_are_throughput(window: MeasuredWindow) -> None:
    recorder = WorkRecorder(window)
    warming = window.from_ns - 1
    recorder.started(warming)
    recorder.waited(warming, 0, 1.0)
    recorder.ended(warming)
    report = recorder.report(window)
    assert (report.started, report.completed, report.latency_seconds.count) == (0, 0, 0)
    assert report.mean_wait_by_slot == ()
    assert report.ended_in_window == 1
    assert recorder.completed_ever == 1


def test_failures_are_counted_by_code_and_their_latency_is_not_forgotten(
    window: MeasuredWindow,
) -> None:
    recorder = WorkRecorder(window)
    for error in (PoolTimeout("none came free"), UNFINISHED, None):
        recorder.started(window.from_ns)
        recorder.ended(window.from_ns, error)
    report = recorder.report(window)
    assert report.errors == {"TimeoutError": 1, UNFINISHED: 1}
    assert (report.completed, report.failed, report.latency_seconds.count) == (1, 2, 3)
    assert sum(interval.errors for interval in report.intervals) == 2


def test_intervals_are_whole_ones_even_where_nothing_happened(window: MeasuredWindow) -> None:
    recorder = WorkRecorder(window, interval_seconds=0.5)
    recorder.ended(window.from_ns)
    intervals = recorder.report(window).intervals
    assert [interval.throughput_per_second for interval in intervals] == [0, 0, 2, 0]
    assert intervals[0].latency_p99_seconds is None
    assert len(recorder.report(window.cut(window.from_ns + SECOND)).intervals) == 2


def test_waits_are_dealt_to_slots(window: MeasuredWindow) -> None:
    recorder = WorkRecorder(window)
    for slot in range(2 * SLOTS):
        recorder.waited(window.from_ns, slot, 1.0 if slot < SLOTS else 3.0)
    assert recorder.report(window).mean_wait_by_slot == (2.0,) * SLOTS


def test_a_window_that_is_cut_never_turns_negative(window: MeasuredWindow) -> None:
    assert window.cut(window.from_ns - 5).seconds == 0
    assert window.cut(window.until_ns + 5) == window


@pytest.mark.parametrize(
    ("values", "index"),
    [((2.0, 2.0, 2.0, 2.0), 1.0), ((4.0, 0.0, 0.0, 0.0), 0.25), ((0.0, 0.0), None), ((), None)],
)
def test_jains_index_is_1_where_all_are_alike_and_1_of_n_where_one_has_all(
    values: tuple[float, ...], index: float | None
) -> None:
    assert jain_index(values) == (index if index is None else pytest.approx(index))


def test_an_error_without_a_code_is_named() -> None:
    assert name_of(ZeroDivisionError()) == "ZeroDivisionError"
    lost = OSError("gone")
    lost.sqlstate = "57P01"  # type: ignore[attr-defined]
    assert name_of(lost) == "57P01"
