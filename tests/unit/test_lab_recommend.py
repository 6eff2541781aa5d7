"""The recommendation lands where theory says and gives its reasons, or says why there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.lab_results import always, exponential, make_about, make_point, make_result
from worker.lab.analysis import analyse
from worker.lab.durations import durations_from
from worker.lab.measured import Point
from worker.lab.queueing import wait_mmc
from worker.lab.results import Objective, Result

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)


@pytest.fixture(scope="module")
def sweep() -> Result:
    """200 arrivals a second that are held 20 ms each: 4 connections busy on average."""
    points = [
        make_point(size, rate=200, repeat=n, room=100, seconds=12)
        for size in SIZES
        for n in (0, 1, 2)
    ]
    return analyse(make_result(points))


@pytest.mark.long
def test_it_lands_within_one_step_of_theory(sweep: Result) -> None:
    allowed = 0.020 * 0.75
    waits = {size: wait_mmc(size, 200, 0.020) for size in SIZES}
    right = next(size for size, wait in waits.items() if wait and wait.p99 <= allowed)
    assert sweep.recommendation is not None
    at = SIZES.index(sweep.recommendation.pool_size)
    assert abs(at - SIZES.index(right)) <= 1


def test_the_env_snippet_is_a_valid_setting(sweep: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.settings.settings import Settings

    advice = sweep.recommendation
    assert advice is not None
    for line in advice.env.splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.database.pool_size == advice.pool_size
    assert settings.lanes == advice.lanes
    assert settings.prefetch == advice.prefetch


def test_every_smaller_pool_is_told_with_what_is_wrong_with_it(sweep: Result) -> None:
    advice = sweep.recommendation
    assert advice is not None
    told = {
        pool: fault
        for reason in advice.reasons
        for pools, colon, fault in [reason.partition(": ")]
        for pool in pools.split(", ")
        if colon
    }
    for size in SIZES:
        assert (f"{size}+0" in told) == (size < advice.pool_size)
    assert told["1+0"] == "does less work."


def test_the_fleet_line_counts_overflow_and_reserve(sweep: Result) -> None:
    advice = sweep.recommendation
    assert advice is not None
    each = advice.pool_size + advice.max_overflow
    assert advice.reserve == 3
    assert advice.most_replicas == (100 - 3) // each
    assert [line.connections for line in advice.fleet[:2]] == [each + 3, 2 * each + 3]
    assert advice.fleet[-1].fits is (8 * each + 3 <= 100)


def test_the_headline_speaks_of_the_rate_that_was_offered_and_the_reasons_of_full_pools() -> None:
    """Kept full, bigger pools do more: the headline may not deny what the table shows."""
    points = [make_point(size, rate=100, seconds=6) for size in (2, 8, 16)]
    points += [make_point(size, clients=3 * size, seconds=6) for size in (2, 8, 16)]
    result = analyse(make_result(points))
    advice = result.recommendation
    assert advice is not None
    assert advice.setting == result.answer
    assert advice.pool_size == 8
    assert "all the work that arrives, so that no bigger pool does more" in advice.sentence
    assert any("; kept full, 16+0 does the most, " in reason for reason in advice.reasons)


def test_chance_that_sends_less_than_the_rate_is_no_failure_to_keep_up() -> None:
    """Poisson arrivals of 40/s are a tenth fewer in one window of four seconds out of four."""
    results = [
        analyse(make_result([make_point(n, rate=40, seconds=4, seed=seed) for n in (8, 16)]))
        for seed in range(4)
    ]
    assert min(point.load.intended for each in results for point in each.points) < 0.97 * 160
    sentences = [each.recommendation.sentence for each in results if each.recommendation]
    assert sentences
    assert all("does all the work that arrives" in sentence for sentence in sentences)


def test_a_rate_that_no_pool_keeps_up_with_is_told() -> None:
    """No pool does all of it, so none is said to."""
    points = [
        make_point(size, rate=200, holds=always(0.1), seconds=6, repeat=n, room=1)
        for size in (2, 4)
        for n in (0, 1)
    ]
    lossless = [
        point.model_copy(update={"load": point.load.model_copy(update={"dropped": 0})})
        for point in points
    ]
    about = make_about(objective=Objective(wait_p99_seconds=60))
    result = analyse(make_result(lossless, about=about))
    told = [result.no_recommendation_because or ""]
    if result.recommendation is not None:
        told = [result.recommendation.sentence, *result.recommendation.reasons]
    assert not any("does all" in words for words in told)


def grown(hold: Callable[[int], float]) -> Result:
    points = [
        make_point(size, clients=40, holds=exponential(hold(size)), repeat=n, seconds=6)
        for size in (1, 2, 4, 8, 16, 32)
        for n in (0, 1, 2)
    ]
    return analyse(make_result(points))


@pytest.mark.long
def test_a_closed_load_finds_the_peak_and_does_not_judge_the_wait() -> None:
    def hold(size: int) -> float:
        return 0.01 * (1 + 0.08 * (size - 1) + 0.004 * size * (size - 1))

    result = grown(hold)
    assert result.fit is not None
    assert result.fit.peak_size == pytest.approx(15.2, rel=0.15)
    assert result.recommendation is not None
    assert result.recommendation.pool_size in (8, 16)
    assert any("the wait was not judged" in reason for reason in result.recommendation.reasons)


def test_a_database_with_one_core_needs_one_connection() -> None:
    result = grown(lambda size: 0.01 * size)
    assert result.recommendation is not None
    assert result.recommendation.pool_size == 1
    assert any("smallest pool measured" in reason for reason in result.recommendation.reasons)


def test_a_pool_that_failed_a_check_is_not_recommended(sweep: Result) -> None:
    assert sweep.recommendation is not None
    size = sweep.recommendation.pool_size

    def doubtful(point: Point) -> Point:
        if point.setting.pool_size != size:
            return point
        pool = point.pool.model_copy(update={"busy_mean": point.pool.busy_mean * 1.5})
        return point.model_copy(update={"pool": pool})

    points = [doubtful(point) for point in sweep.points]
    other = analyse(make_result(points)).recommendation
    assert other is not None
    assert other.pool_size > size
    assert any(f"{size}+0: failed a check" in reason for reason in other.reasons)


def test_a_pool_that_lives_on_its_overflow_is_not_recommended() -> None:
    def churning(point: Point) -> Point:
        pool = point.pool.model_copy(update={"connects": point.hold.seconds.count // 3})
        return point.model_copy(update={"pool": pool})

    points = [
        churning(make_point(2, max_overflow=8, rate=200, seconds=6)),
        make_point(12, rate=200, seconds=6),
    ]
    advice = analyse(make_result(points)).recommendation
    assert advice is not None
    assert advice.pool_size == 12
    assert any("2+8: opens a connection for 33" in reason for reason in advice.reasons)


def refusal(points: list[Point], **about: object) -> str:
    result = analyse(make_result(points, about=make_about(**about)))
    assert result.recommendation is None
    assert result.no_recommendation_because is not None
    return result.no_recommendation_because


def test_one_size_alone_is_no_comparison() -> None:
    assert "One pool size alone" in refusal([make_point(8, rate=200, repeat=n) for n in (0, 1)])


def test_an_objective_that_nothing_meets_is_told_with_every_size() -> None:
    points = [make_point(size, rate=200, seconds=8) for size in (5, 6)]
    words = refusal(points, objective=Objective(wait_p99_seconds=0.0001))
    assert "5+0: " in words
    assert "6+0: waits" in words


def test_a_wait_that_no_model_explains_is_not_recommended() -> None:
    def slow(point: Point) -> Point:
        seconds = durations_from([0.012] * point.wait.seconds.count)
        waits = point.wait.model_copy(update={"seconds": seconds})
        return point.model_copy(update={"wait": waits})

    points = [slow(make_point(size, rate=200, holds=always(0.01))) for size in (8, 16)]
    assert "its wait is not the queue's" in refusal(points)


def test_a_curve_that_does_not_fit_is_told() -> None:
    points = [
        make_point(size, clients=40, holds=always(hold), seconds=4)
        for size, hold in ((1, 0.01), (2, 0.01), (4, 0.2), (8, 0.01), (16, 0.01))
    ]
    assert "scalability law does not describe" in refusal(points)


def test_the_same_measurements_give_the_same_findings(sweep: Result) -> None:
    assert analyse(sweep) == sweep
