"""Topic patterns, as RabbitMQ's topic exchanges match them."""

from __future__ import annotations


def matches(pattern: str, routing_key: str) -> bool:
    """Whether the pattern fits: words between dots, `*` is any one word, `#` any number of them.

    >>> matches("*.*.rejected", "user.create.rejected"), matches("user.#", "user")
    (True, True)
    """
    # The places in the pattern that what was read so far can lead to: linear, whatever the `#`s.
    wanted = _words(pattern)
    places = _skip_hashes(wanted, {0})
    for word in _words(routing_key):
        reached = {place for place in places if place < len(wanted) and wanted[place] == "#"}
        reached |= {
            place + 1 for place in places if place < len(wanted) and wanted[place] in ("*", word)
        }
        places = _skip_hashes(wanted, reached)
    return len(wanted) in places


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _skip_hashes(wanted: list[str], places: set[int]) -> set[int]:
    """These places and those behind the `#`s at them, which may stand for nothing."""
    found = set(places)
    for place in sorted(places):
        following = place
        while following < len(wanted) and wanted[following] == "#":
            following += 1
            found.add(following)
    return found
