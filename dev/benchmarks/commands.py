"""Workloads: what is sent, what must come back, which rows must be there in the end."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from random import Random
from typing import Any


class Workload(ABC):
    """Some number of commands, the same ones for the same seed.

    Every command has an id of its own and is to be answered by exactly one event.
    """

    def rows_before(self, count: int) -> int:
        """How many users the table holds before `count` commands; their ids are 1, 2, 3, …"""
        return 0

    @abstractmethod
    def bodies(self, count: int, *, seed: int) -> list[bytes]:
        """The commands, as JSON."""

    @abstractmethod
    def events(self, count: int) -> Mapping[str, int]:
        """How many events of each type must answer them."""

    @abstractmethod
    def rows_after(self, count: int) -> int:
        """How many users the table must hold after them."""


class Create(Workload):
    """A new user with each command."""

    def bodies(self, count: int, *, seed: int) -> list[bytes]:
        """`user.create` with a name, an address and a rating."""
        random = Random(seed)
        return [
            _body(
                random,
                "user.create",
                data={
                    "username": f"user-{number}",
                    "email": f"user-{number}@example.com",
                    "rating": number % 50 / 10,
                },
            )
            for number in range(count)
        ]

    def events(self, count: int) -> Mapping[str, int]:
        """One `user.created` each."""
        return {"user.created": count}

    def rows_after(self, count: int) -> int:
        """One user each."""
        return count


class Change(Workload):
    """One update and, some time after it, the delete of each user that is there already.

    Half of the users are named by id, half by username; the order is shuffled.
    """

    def rows_before(self, count: int) -> int:
        """One user for two commands."""
        return count // 2

    def bodies(self, count: int, *, seed: int) -> list[bytes]:
        """`user.update` and `user.delete`, as many of each."""
        random = Random(seed)
        order = [*range(1, count // 2 + 1)] * 2
        random.shuffle(order)
        updated: set[int] = set()
        bodies = []
        for user in order:
            # Always named the same way, as the commands of one key keep their order.
            target = {"id": user} if user % 2 else {"username": f"user-{user}"}
            if user in updated:
                bodies.append(_body(random, "user.delete", target=target))
            else:
                updated.add(user)
                data = {"email": f"new-{user}@example.com", "rating": 5}
                bodies.append(_body(random, "user.update", target=target, data=data))
        return bodies

    def events(self, count: int) -> Mapping[str, int]:
        """As many of each."""
        return {"user.updated": count // 2, "user.deleted": count // 2}

    def rows_after(self, count: int) -> int:
        """None is left."""
        return 0


def _body(random: Random, type_: str, **members: Any) -> bytes:
    # Ids are spread over the whole range, as those of real senders are.
    return json.dumps({"id": f"{random.getrandbits(128):032x}", "type": type_, **members}).encode()


CREATE, CHANGE = Create(), Change()
