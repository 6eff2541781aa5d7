"""Topic patterns match as RabbitMQ's do."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from worker.broker.client.topic_match import matches

WORDS = ["a", "b", ""]
keys = st.lists(st.sampled_from(WORDS), max_size=5).map(".".join)
patterns = st.lists(st.sampled_from([*WORDS, "*", "#"]), max_size=5).map(".".join)


def by_definition(pattern: list[str], key: list[str]) -> bool:
    if not pattern:
        return not key
    first, *rest = pattern
    if first == "#":
        return any(by_definition(rest, key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and by_definition(rest, key[1:])


@given(patterns, keys)
def test_it_is_what_the_definition_says(pattern: str, key: str) -> None:
    words = [text.split(".") if text else [] for text in (pattern, key)]
    assert matches(pattern, key) == by_definition(*words)


@given(keys)
def test_a_hash_alone_fits_everything_and_a_key_fits_itself(key: str) -> None:
    assert matches("#", key)
    assert matches(key, key)


def test_examples() -> None:
    assert matches("user.*", "user.created")
    assert not matches("user.*", "user.create.rejected")
    assert matches("*.*.rejected", "user.create.rejected")
    assert not matches("*.*.rejected", "command.rejected")
    assert matches("#.rejected", "command.rejected")
    assert matches("user.#", "user")


def test_many_hashes_take_no_longer() -> None:
    began = time.monotonic()
    assert not matches("#.a." * 200 + "b", "a." * 200 + "c")
    assert time.monotonic() - began < 5
