"""The queueing models agree with tables, with each other, and with a walk through the events."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.lab_results import always, bimodal, make_point
from worker.lab.durations import durations_from
from worker.lab.measured import Point
from worker.lab.model import predict
from worker.lab.queueing import (
    erlang_c,
    simulate_closed,
    simulate_open,
    values_of,
    wait_mmc,
)


@pytest.mark.parametrize(
    ("servers", "offered", "waits"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (10, 8.0, 0.40918), (10, 5.0, 0.03611)],
)
def test_erlang_c_is_what_the_tables_say(servers: int, offered: float, waits: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(waits, rel=1e-3)


@given(st.integers(1, 64), st.floats(0.01, 0.99))
def test_more_connections_never_wait_longer(servers: int, share: float) -> None:
    rate = servers * share / 0.01
    fewer, more = wait_mmc(servers, rate, 0.01), wait_mmc(servers + 1, rate, 0.01)
    assert fewer is not None
    assert more is not None
    assert more.mean <= fewer.mean
    assert more.p99 <= fewer.p99


def test_an_overloaded_queue_has_no_steady_state() -> None:
    assert wait_mmc(4, 400, 0.01) is None
    assert erlang_c(4, 4.0) == 1.0


def test_the_simulation_agrees_with_the_formula_where_the_formula_holds() -> None:
    random = np.random.default_rng(7)
    exact = wait_mmc(4, 300, 0.01)
    assert exact is not None
    waits = simulate_open(
        4,
        300,
        random.exponential(0.01, 100_000),
        seconds=1_000,
        warm_up_seconds=10,
        arrivals="poisson",
        random=random,
    )
    assert float(waits.mean()) == pytest.approx(exact.mean, rel=0.05)
    assert float(np.quantile(waits, 0.99)) == pytest.approx(exact.p99, rel=0.05)


def test_regular_arrivals_at_equal_holds_never_wait() -> None:
    random = np.random.default_rng(1)
    holds = np.array([0.01])
    regular = simulate_open(
        2, 190, holds, seconds=10, warm_up_seconds=1, arrivals="constant", random=random
    )
    assert regular.max() == pytest.approx(0, abs=1e-9)
    poisson = simulate_open(
        2, 190, holds, seconds=10, warm_up_seconds=1, arrivals="poisson", random=random
    )
    assert poisson.max() > 0.01


def test_clients_beyond_the_pool_wait_for_a_round_of_the_others() -> None:
    # 12 clients on 4 connections of 10 ms each: two full rounds ahead of everybody.
    waits = simulate_closed(4, 12, np.array([0.01]), count=1_000, random=np.random.default_rng(1))
    assert waits == pytest.approx(0.02)


@pytest.mark.parametrize("holds", [always(0.02), bimodal(0.01, 0.1, 0.1)])
def test_a_measured_queue_is_predicted_from_its_own_holds(holds: object) -> None:
    point = make_point(6, rate=200, holds=holds, seed=3)  # type: ignore[arg-type]
    simulated = predict(point)[0]
    assert simulated.model == "G/G/c"
    assert simulated.agrees
    assert abs(simulated.residual) < 0.4


def test_a_wait_that_is_not_the_queues_is_noticed() -> None:
    point = make_point(16, rate=200)
    late = durations_from([0.05] * point.wait.seconds.count)
    waits = point.wait.model_copy(update={"seconds": late})
    simulated = predict(point.model_copy(update={"wait": waits}))[0]
    assert not simulated.agrees
    assert simulated.p99_high_seconds < 0.05


def test_what_was_dropped_is_not_predicted() -> None:
    point = make_point(2, rate=200, room=20)
    assert point.load.dropped > 0
    assert predict(point) == ()


def test_the_values_survive_the_histogram() -> None:
    found = values_of(durations_from([0.001, 0.001, 0.25]))
    assert sorted(found) == pytest.approx([0.001, 0.001, 0.25], rel=1e-3)
    many = values_of(durations_from(np.linspace(0.001, 0.1, 30_000)), most=1_000)
    assert many.size == 1_000
    assert float(many.mean()) == pytest.approx(0.0505, rel=0.01)


def test_lanes_that_let_work_wait_in_memory_have_no_predicted_wait() -> None:
    point = make_point(4, rate=150)

    def with_lanes(lanes: int) -> Point:
        setting = point.setting.model_copy(update={"lanes": lanes})
        return point.model_copy(update={"setting": setting})

    assert predict(with_lanes(4)) == ()
    assert predict(with_lanes(5))
