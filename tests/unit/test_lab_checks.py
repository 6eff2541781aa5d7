"""The lab's questions to itself: passed by an honest measurement, failed by each planted fault."""

from __future__ import annotations

import pytest

from tests.support.lab_results import make_point, make_result
from worker.lab.analysis import analyse
from worker.lab.checks import check_point, generator_headroom, littles_law, repeats, steady_state
from worker.lab.durations import durations_from
from worker.lab.measured import Host, Point, Process
from worker.lab.repeats import Repeats, by_setting, mean_interval, quantile_interval

QUIET = Host(cores=2, cpu_cores=0.7, others_cpu_cores=0.1)
CROWDED = Host(cores=2, cpu_cores=1.99, others_cpu_cores=1.2)


def late(point: Point, **changes: object) -> Point:
    """A tenth of the work was started late."""
    load = point.load.model_copy(update={"late": point.load.intended // 10})
    return point.model_copy(update={"load": load, **changes})


@pytest.fixture(scope="module")
def honest() -> Point:
    return make_point(8, rate=200)


def test_an_honest_measurement_passes_all(honest: Point) -> None:
    assert [check.name for check in check_point(honest) if not check.passed] == []


def test_busy_connections_that_no_hold_explains_break_littles_law(honest: Point) -> None:
    busy = honest.pool.model_copy(update={"busy_mean": honest.pool.busy_mean + 1})
    check = littles_law(honest.model_copy(update={"pool": busy}))
    assert not check.passed
    assert check.value is not None
    assert check.value > 0.05
    assert "apart" in check.words


def test_a_hundredth_of_a_connection_is_no_breach_of_littles_law() -> None:
    point = make_point(4, rate=2)
    busy = point.pool.model_copy(update={"busy_mean": point.pool.busy_mean + 0.02})
    assert littles_law(point.model_copy(update={"pool": busy})).passed


def test_a_throughput_that_still_rises_is_no_steady_state(honest: Point) -> None:
    rising = [
        sample.model_copy(update={"throughput_per_second": 100 + 5 * number})
        for number, sample in enumerate(honest.samples)
    ]
    check = steady_state(honest.model_copy(update={"samples": tuple(rising)}))
    assert not check.passed
    assert "throughput rose" in check.words


def test_a_queue_that_grows_is_no_steady_state() -> None:
    check = steady_state(make_point(2, rate=200, room=100_000, seconds=10))
    assert not check.passed
    assert "demand for connections rose" in check.words


@pytest.mark.long
def test_chance_is_no_trend() -> None:
    failed = [
        seed for seed in range(20) if not steady_state(make_point(8, rate=300, seed=seed)).passed
    ]
    assert failed == []


def test_a_short_window_says_that_it_was_not_looked_at(honest: Point) -> None:
    check = steady_state(honest.model_copy(update={"samples": honest.samples[:3]}))
    assert check.passed
    assert "not looked at" in check.words


def test_a_generator_that_is_late_is_told(honest: Point) -> None:
    check = generator_headroom(late(honest, host=QUIET))
    assert not check.passed
    assert "something held the generator up" in check.words


def test_a_generator_without_cpu_to_spare_is_told(honest: Point) -> None:
    for host in (QUIET, CROWDED, None):
        full = generator_headroom(late(honest, host=host, generator=Process(cpu_cores=0.98)))
        assert not full.passed
        assert "could not keep up" in full.words
    full = generator_headroom(honest.model_copy(update={"generator": Process(cpu_cores=0.98)}))
    assert not full.passed


def test_a_machine_that_is_busy_with_others_is_not_the_generators_fault(honest: Point) -> None:
    check = generator_headroom(late(honest, host=CROWDED))
    assert not check.passed
    assert "busy with others, which used 1.2 of its 2 cores" in check.words
    assert "could not keep up" not in check.words


def test_a_machine_that_the_lab_itself_fills_is_not_busy_with_others(honest: Point) -> None:
    own = Host(cores=2, cpu_cores=1.98, others_cpu_cores=0.1)
    assert "others" not in generator_headroom(late(honest, host=own)).words


def test_a_run_that_was_stopped_says_so(honest: Point) -> None:
    result = analyse(make_result([honest], partial=True, kind="run"))
    assert {check.name: check.passed for check in result.checks}["complete"] is False
    assert result.recommendation is None
    assert "stopped before its end" in (result.no_recommendation_because or "")


def test_repeats_that_differ_are_told(honest: Point) -> None:
    def at(throughput: float) -> Point:
        return honest.model_copy(
            update={"throughput_per_second": throughput, "samples": honest.samples[:0]}
        )

    apart = repeats([Repeats(honest.setting, (at(100), at(200), at(300)))])
    assert not apart.passed
    close = repeats([Repeats(honest.setting, (at(200), at(201), at(202)))])
    assert close.passed


def test_the_interval_of_a_mean_is_students() -> None:
    # scipy is asked for the same as a table: t(0.975, 4) = 2.776.
    interval = mean_interval([10, 11, 12, 13, 14])
    assert interval.high - 12 == pytest.approx(2.776 * (2.5 / 5) ** 0.5, rel=1e-3)
    assert mean_interval([7.0]).low == 7.0


def test_the_interval_of_a_quantile_holds_it() -> None:
    durations = durations_from(number / 1_000 for number in range(1, 1_001))
    interval = quantile_interval(durations, 0.99)
    assert interval.low < durations.p99 < interval.high
    assert interval.low == pytest.approx(0.984, abs=0.002)


def test_repeats_are_found_by_their_setting() -> None:
    points = [make_point(size, rate=100, repeat=n, seconds=2) for n in (0, 1) for size in (4, 2)]
    groups = by_setting(points)
    assert [(each.setting.pool_size, len(each.points)) for each in groups] == [(2, 2), (4, 2)]
    assert groups[0].wait.count == sum(point.wait.seconds.count for point in groups[0].points)
