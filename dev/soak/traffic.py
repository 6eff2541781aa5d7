"""The commands: users come, change and go, so that the tables stay as large as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, islice
from random import Random

UNUSABLE_EVERY, DUPLICATE_EVERY = 1_000, 700
"""One message in so many is no usable command, or has come before."""
LIVING = 1_000
"""Users that there are at once, at most."""


def commands(*, seed: int) -> Iterator[bytes]:
    """Without end. Each is answered by one event; one in `UNUSABLE_EVERY` by a dead letter, too."""
    random = Random(seed)
    number = count(1)
    before = b""
    for body in _lives(random):
        current = next(number)
        if current % UNUSABLE_EVERY == 0:
            yield _command(random, "user.paint", colour="red")
        elif current % DUPLICATE_EVERY == 0:
            yield before
        before = body
        yield body


def _lives(random: Random) -> Iterator[bytes]:
    """Creates, updates and deletes, a user's own apart from each other by those of all others."""
    for first in count(1, LIVING):
        names = [f"soak-{number}" for number in range(first, first + LIVING)]
        for name in names:
            data = {"username": name, "email": f"{name}@example.com", "rating": 1.5}
            yield _command(random, "user.create", data=data)
        for name in names:
            yield _command(
                random, "user.update", target={"username": name}, data={"rating": random.random()}
            )
        for name in names:
            yield _command(random, "user.delete", target={"username": name})


def _command(random: Random, type_: str, **members: object) -> bytes:
    return json.dumps({"id": f"{random.getrandbits(128):032x}", "type": type_, **members}).encode()


def some(source: Iterator[bytes], number: int) -> list[bytes]:
    """The next few."""
    return list(islice(source, number))
