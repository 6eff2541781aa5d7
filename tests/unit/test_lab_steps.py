"""Durations are drawn as their distributions say."""

from __future__ import annotations

import statistics
from random import Random
from typing import Any

import pytest

from worker.lab.steps import QueryStep


def drawn(count: int = 20_000, **values: Any) -> list[float]:
    step, random = QueryStep(kind="query", **values), Random(3)
    return [step.draw(random) for _ in range(count)]


def test_a_constant_is_constant() -> None:
    assert set(drawn(seconds=0.02)) == {0.02}


def test_an_exponential_has_its_mean_as_its_deviation() -> None:
    values = drawn(seconds=0.02, distribution="exponential")
    assert statistics.mean(values) == pytest.approx(0.02, rel=0.03)
    assert statistics.stdev(values) == pytest.approx(0.02, rel=0.05)
    assert set(drawn(seconds=0, distribution="exponential")) == {0}


def test_a_lognormal_has_its_mean_and_a_long_tail() -> None:
    values = drawn(seconds=0.02, distribution="lognormal", sigma=1)
    assert statistics.mean(values) == pytest.approx(0.02, rel=0.05)
    # The median of a lognormal is its mean over exp(sigma² / 2).
    assert statistics.median(values) == pytest.approx(0.02 / 1.6487, rel=0.05)


def test_a_bimodal_has_two_values_in_their_shares() -> None:
    values = drawn(seconds=0.002, distribution="bimodal", slow_seconds=2, slow_share=0.01)
    assert set(values) == {0.002, 2}
    assert values.count(2) / len(values) == pytest.approx(0.01, rel=0.2)
