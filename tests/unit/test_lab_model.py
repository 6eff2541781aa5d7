"""The scalability law is found again in what it made, and nothing is read into too little."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.lab_results import always, make_point
from worker.lab.model import fit_usl, usl
from worker.lab.repeats import Repeats, by_setting

SIZES = (1, 2, 4, 8, 16, 32)
TEMPLATES = {
    size: make_point(size, clients=size * 2, holds=always(0.05), seconds=2, warm_up=1)
    for size in SIZES
}
"""Full pools."""


def measured(
    contention: float, coherency: float, *, noise: float = 0.0, seed: int = 0, most: int = 32
) -> list[Repeats]:
    """Full pools with just the throughput that the law gives, and a little noise."""
    random = np.random.default_rng(seed)
    points = []
    for size, template in TEMPLATES.items():
        if size <= most:
            throughput = usl(size, 100, contention, coherency) * (1 + noise * random.normal())
            change = {"throughput_per_second": throughput, "samples": ()}
            points.append(template.model_copy(update=change))
    return by_setting(points)


def test_the_parameters_are_found_again() -> None:
    fit = fit_usl(measured(0.05, 0.002))
    assert fit is not None
    assert fit.contention == pytest.approx(0.05, rel=1e-3)
    assert fit.coherency == pytest.approx(0.002, rel=1e-3)
    assert fit.single_throughput_per_second == pytest.approx(100, rel=1e-3)
    assert fit.peak_size == pytest.approx((0.95 / 0.002) ** 0.5, rel=1e-3)
    assert fit.agrees


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(100):
        fit = fit_usl(measured(0.05, 0.002, noise=0.02, seed=seed))
        assert fit is not None
        assert fit.agrees
        held += fit.contention_interval.low <= 0.05 <= fit.contention_interval.high
    assert held >= 90  # of 95; the noise grows with the throughput, which the fit does not know


def test_a_pool_that_only_gains_has_no_peak() -> None:
    fit = fit_usl(measured(0.02, 0.0))
    assert fit is not None
    assert fit.peak_size is None
    assert "no peak" in fit.words


def test_a_curve_that_is_none_does_not_agree() -> None:
    groups = measured(0.05, 0.002)
    jumped = groups[3].points[0].model_copy(update={"throughput_per_second": 20.0})
    groups[3] = Repeats(groups[3].setting, (jumped,))
    fit = fit_usl(groups)
    assert fit is not None
    assert not fit.agrees
    assert "at 8 at worst" in fit.words


def test_three_sizes_are_too_few() -> None:
    assert fit_usl(measured(0.05, 0.002, most=4)) is None
