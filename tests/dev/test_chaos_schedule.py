"""The same seed breaks the same things, and a schedule leaves nothing out."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from dev.chaos.faults import FAULTS
from dev.chaos.schedule import schedule
from dev.chaos.traffic import Traffic

RECIPES = {name: kind.recipe for name, kind in FAULTS.items()}
A_ROUND = sum(recipe.weight for recipe in RECIPES.values())


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_the_same_seed_gives_the_same_schedule(seed: int) -> None:
    assert schedule(seed, 30, RECIPES) == schedule(seed, 30, RECIPES)
    assert schedule(seed, 30, RECIPES) != schedule(seed + 1, 30, RECIPES)


def test_half_an_hour_has_over_two_hundred_faults_of_every_kind() -> None:
    plan = schedule(1, 30, RECIPES)
    assert len(plan) >= 200
    assert {planned.name for planned in plan} == RECIPES.keys()


def test_every_kind_comes_by_its_weight_before_any_comes_again() -> None:
    plan = schedule(5, 1, RECIPES, count=2 * A_ROUND)
    for start in (0, A_ROUND):
        found = Counter(planned.name for planned in plan[start : start + A_ROUND])
        assert found == {name: recipe.weight for name, recipe in RECIPES.items()}


def test_a_fault_lasts_as_long_as_its_kind_may() -> None:
    for planned in schedule(9, 1, RECIPES, count=300):
        least, most = RECIPES[planned.name].hold_seconds
        assert least <= planned.hold_seconds <= most


def test_the_traffic_is_the_same_for_the_same_seed_and_streams_share_no_key() -> None:
    def some(seed: int, stream: int) -> list[bytes]:
        return [sent.body for sent in islice(Traffic(seed, stream), 2_000)]

    def keys(stream: int) -> set[str]:
        return {sent.key for sent in islice(Traffic(1, stream), 2_000) if sent.key}

    assert some(1, 0) == some(1, 0)
    assert some(1, 0) != some(2, 0)
    assert not keys(0) & keys(1)
