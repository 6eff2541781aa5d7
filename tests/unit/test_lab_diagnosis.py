"""Each planted trouble is named, and nothing else is; a sound pool has no name."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.lab_results import bimodal, exponential, make_about, make_point
from worker.lab.durations import durations_from
from worker.lab.findings import Diagnosis
from worker.lab.measured import Host, Point, Process, Server
from worker.lab.repeats import by_setting
from worker.lab.sizing import diagnose


def found(points: Sequence[Point]) -> dict[str, Diagnosis]:
    return {each.name: each for each in diagnose(by_setting(points), make_about())}


def changed(point: Point, part: str, **values: object) -> Point:
    return point.model_copy(update={part: getattr(point, part).model_copy(update=values)})


def test_a_sound_pool_has_no_trouble() -> None:
    assert found([make_point(8, rate=200)]) == {}


def test_a_leak_is_named_and_the_pool_is_not_called_too_small() -> None:
    point = make_point(4, rate=190)
    point = changed(point, "pool", still_out=3, still_out_at=("shop/orders.py:12 in place",))
    point = changed(point, "wait", timeouts=200)
    assert list(found([point])) == ["leak"]
    words = found([point])["leak"].words
    assert "3 connections never came back, of the 4" in words
    assert "shop/orders.py:12 in place" in words


def test_a_pool_that_is_too_small_is_named() -> None:
    troubles = found([make_point(2, rate=200, room=100), make_point(8, rate=200)])
    assert list(troubles) == ["pool-too-small"]
    assert troubles["pool-too-small"].pool_sizes == (2,)


def test_clients_of_a_closed_load_wait_without_that_being_too_small() -> None:
    equal = [make_point(4, clients=16), make_point(8, clients=16, holds=exponential(0.0399))]
    assert "pool-too-small" not in found(equal)
    better = [make_point(4, clients=16), make_point(8, clients=16)]
    assert found(better)["pool-too-small"].pool_sizes == (4,)


def test_a_pool_that_is_mostly_unused_is_named() -> None:
    troubles = found([make_point(64, rate=200)])
    assert list(troubles) == ["pool-too-big"]
    assert "Of 64 connections never more than" in troubles["pool-too-big"].words


def test_a_pool_that_only_slows_itself_down_is_named() -> None:
    points = [make_point(8, clients=64), make_point(32, clients=64, holds=exponential(0.09))]
    troubles = found(points)
    assert troubles["pool-too-big"].pool_sizes == (32,)
    assert "held each one longer" in troubles["pool-too-big"].words


def test_one_slow_query_in_a_hundred_is_named() -> None:
    troubles = found([make_point(10, rate=300, holds=bimodal(), seconds=40)])
    assert list(troubles) == ["slow-queries"]
    assert "10 times the median (2 ms)" in troubles["slow-queries"].words


def test_evenly_slow_holds_are_no_slow_queries() -> None:
    assert "slow-queries" not in found([make_point(8, rate=200, holds=exponential(0.03))])


def test_a_lock_is_named_and_the_pool_is_not_called_too_small() -> None:
    point = make_point(4, rate=250, room=100)
    locked = changed(point, "server", lock_wait_sessions_mean=3.1)
    assert list(found([locked])) == ["lock-contention"]
    assert "waited for a lock" in found([locked])["lock-contention"].words


def test_holds_that_a_lock_made_long_are_no_slow_queries() -> None:
    point = make_point(10, rate=300, holds=bimodal(), seconds=40)
    locked = changed(point, "server", lock_wait_sessions_mean=5.0)
    assert list(found([locked])) == ["lock-contention"]


def test_a_busy_event_loop_is_named() -> None:
    lag = durations_from([0.001] * 95 + [0.08] * 5)
    point = make_point(4, rate=250, room=100, worker=Process(cpu_cores=0.7, loop_lag_seconds=lag))
    assert list(found([point])) == ["busy-event-loop"]
    full = make_point(8, rate=200, worker=Process(cpu_cores=0.99))
    assert list(found([full])) == ["busy-event-loop"]


def test_an_overloaded_generator_is_named_first() -> None:
    point = make_point(4, rate=250, room=100)
    late = changed(point, "load", late=point.load.intended // 2)
    assert list(found([late])) == ["overloaded-generator"]


def test_a_machine_that_others_use_is_named_and_neither_loop_nor_generator_is_blamed() -> None:
    lag = durations_from([0.001] * 95 + [0.08] * 5)
    crowded = make_point(
        4,
        rate=250,
        room=100,
        worker=Process(cpu_cores=0.15, loop_lag_seconds=lag),
        host=Host(cores=2, cpu_cores=1.99, others_cpu_cores=1.2),
    )
    late = changed(crowded, "load", late=crowded.load.intended // 2)
    for point in (crowded, late):
        assert list(found([point])) == ["busy-machine"]
        assert "Other programs used 1.2" in found([point])["busy-machine"].words
    # A loop that uses much of a core is busy itself, whatever else runs.
    for cores in (0.6, 0.99):
        busy = changed(crowded, "worker", cpu_cores=cores)
        assert list(found([busy])) == ["busy-event-loop"]


def test_a_full_database_is_no_pool_that_is_too_small() -> None:
    assert "pool-too-small" in found([make_point(4, rate=250, room=100)])
    full = make_point(4, rate=250, room=100, server=Server(cpu_cores=1.7))
    assert "pool-too-small" not in found([full])


def test_a_slow_commit_is_named() -> None:
    point = make_point(8, rate=200)
    commit = durations_from([point.hold.seconds.mean * 0.8] * point.hold.seconds.count)
    assert list(found([changed(point, "hold", commit_seconds=commit)])) == ["slow-commit"]


def test_connections_that_are_opened_all_the_time_are_named() -> None:
    point = make_point(2, max_overflow=8, rate=200)
    churning = changed(point, "pool", connects=point.hold.seconds.count // 2)
    assert "2+8" in found([churning])["connection-churn"].words
