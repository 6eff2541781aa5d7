"""Plans find what they are after, on simulated pools: no server, no clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest

from tests.support.lab_results import exponential, make_point
from worker.lab.measured import Point
from worker.lab.plan import Limit, Plan, PlannedTrial, find_capacity, repeats
from worker.lab.results import Objective
from worker.lab.scenario import Scenario
from worker.lab.scenario_files import load_scenario
from worker.lab.sweep import Matrix, Sweep

STEADY = load_scenario("steady", ["load.measure_seconds=10"])


def simulated(trial: PlannedTrial) -> Point:
    """What a pool would do whose connections are held for 20 ms."""
    load, pool = trial.scenario.load, trial.scenario.pool
    return make_point(
        pool.pool_size,
        max_overflow=pool.max_overflow,
        rate=load.rate_per_second if load.kind == "open" else None,
        clients=load.clients if load.kind == "closed" else None,
        repeat=trial.repeat,
        seconds=load.measure_seconds,
        holds=exponential(0.02),
    )


def carried_out(
    plan: Plan, measure: Callable[[PlannedTrial], Point]
) -> tuple[list[PlannedTrial], float | None]:
    trials = []
    try:
        trial = next(plan)
        while True:
            trials.append(trial)
            trial = plan.send(measure(trial))
    except StopIteration as end:
        return trials, end.value


def of_size(size: int, seconds: float = 10) -> Scenario:
    return STEADY.changed(
        pool={"pool_size": size, "max_overflow": 0}, load={"measure_seconds": seconds}
    )


def test_repeats_are_told_apart() -> None:
    trials, found = carried_out(repeats(STEADY, 3), simulated)
    assert [(trial.repeat, trial.left) for trial in trials] == [(0, 2), (1, 1), (2, 0)]
    assert found is None


@pytest.mark.parametrize("start", [3.0, 300.0])
def test_the_capacity_of_one_server_is_what_theory_says(start: float) -> None:
    # M/M/1: the time in the system is exponential with the rate mu - lambda, so its p99 is
    # ln(100) / (50 - lambda); 0.5 s are kept up to 40.8 arrivals a second.
    limit = Limit(latency_p99_seconds=0.5)
    scenario = of_size(1, seconds=150).changed(load={"rate_per_second": start})
    _, found = carried_out(find_capacity(scenario, limit), simulated)
    assert found == pytest.approx(50 - math.log(100) / 0.5, rel=0.1)


def test_a_capacity_is_confirmed_with_other_arrivals() -> None:
    trials, found = carried_out(find_capacity(of_size(4), Limit(wait_p99_seconds=0.05)), simulated)
    assert trials[-1].repeat > 0
    assert found == pytest.approx(trials[-1].scenario.load.rate_per_second)


def test_a_limit_that_no_rate_keeps_has_no_capacity() -> None:
    limit = Limit(latency_p99_seconds=0.01)  # less than the work itself takes
    trials, found = carried_out(find_capacity(of_size(4), limit), simulated)
    assert found is None
    assert len(trials) <= 10


def test_failed_or_piled_up_work_keeps_no_limit() -> None:
    good = make_point(4, rate=100)
    limit = Limit(latency_p99_seconds=10)
    assert limit.is_kept(good)
    failed = good.load.model_copy(update={"failed": 1})
    assert not limit.is_kept(good.model_copy(update={"load": failed}))
    dropped = good.load.model_copy(update={"dropped": 1})
    assert not limit.is_kept(good.model_copy(update={"load": dropped}))
    slow = good.throughput_per_second * 0.9
    assert not limit.is_kept(good.model_copy(update={"throughput_per_second": slow}))


def sweep(seed: int = 1, **changes: tuple[int, ...]) -> Sweep:
    matrix = Matrix(**{"pool_sizes": (1, 2, 4, 8, 16), "overflows": (0, 5), **changes})
    base = STEADY.changed(load={"rate_per_second": 200})
    return Sweep(base, matrix, Objective(), repeats=2, seed=seed)


def settings(trials: list[PlannedTrial]) -> list[tuple[int, int, str]]:
    return [
        (
            trial.scenario.pool.pool_size,
            trial.scenario.pool.max_overflow,
            trial.scenario.load.kind,
        )
        for trial in trials
    ]


def test_a_sweep_measures_every_cell_as_often_as_asked_and_each_size_full_once() -> None:
    count = len(list(sweep().scenarios()))
    trials, _ = carried_out(sweep().plan(), simulated)
    counts = Counter(settings(trials[:count]))
    for size in (1, 2, 4, 8, 16):
        assert counts[size, 0, "open"] == counts[size, 5, "open"] == 2
        assert counts[size, 0, "closed"] == 1
        assert counts[size, 5, "closed"] == 0
    repeats_of_one = [
        trial.repeat for trial in trials[:count] if settings([trial])[0] == (4, 5, "open")
    ]
    assert repeats_of_one == [0, 1]


def test_the_order_is_shuffled_by_the_seed_and_by_nothing_else() -> None:
    one = make_point(4, rate=200, seconds=2)

    def order(seed: int) -> list[tuple[int, int, str]]:
        return settings(carried_out(sweep(seed).plan(), lambda _: one)[0])

    assert order(1) == order(1)
    assert order(1)[:20] != order(2)[:20]
    assert order(1)[:20] != sorted(order(1)[:20])


def test_it_looks_closer_until_the_knee_is_known_to_one_connection() -> None:
    trials, _ = carried_out(sweep(overflows=(0,)).plan(), simulated)
    sizes = {size for size, _, kind in settings(trials) if kind == "open"}
    objective = Objective()
    allowed = objective.wait_p99_seconds * (1 - objective.headroom)
    good = [
        size
        for size in sorted(sizes)
        if all(
            simulated(trial).wait.seconds.p99 <= allowed
            for trial in trials
            if settings([trial])[0] == (size, 0, "open")
        )
    ]
    # 4 connections are busy on average, so the knee is above 4 and below 16.
    assert 4 < good[0] < 16
    assert good[0] - 1 in sizes
    assert sizes - {1, 2, 4, 8, 16}


def test_no_pool_that_is_good_ends_a_sweep_without_a_closer_look() -> None:
    plan = sweep(pool_sizes=(1, 2), overflows=(0,))
    trials, _ = carried_out(plan.plan(), simulated)
    assert len(trials) == len(list(plan.scenarios()))


def test_groups_get_a_lane_for_each_connection() -> None:
    scenarios = list(sweep(group_sizes=(1, 64)).scenarios())
    for scenario in scenarios:
        grouped = scenario.work.group_size == 64
        assert scenario.work.lanes == (scenario.connections if grouped else None)


def test_a_closed_load_is_swept_as_it_is() -> None:
    base = STEADY.changed(load={"kind": "closed", "clients": 40})
    plan = Sweep(base, Matrix((1, 2, 4)), repeats=2)
    trials, _ = carried_out(plan.plan(), simulated)
    assert {kind for _, _, kind in settings(trials)} == {"closed"}
    assert len(trials) >= 6
