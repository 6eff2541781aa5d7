"""What is sent: commands of every kind, so that order, effects and refusals can be checked.

Users of two kinds: settled ones, whose ratings are sent as 1, 2, 3 …, and passing ones, who are
made, changed and deleted. Between them stand commands that must be refused, messages that are none,
the same command again, and some without an id.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

SETTLED_USERS = 300
REMEMBERED = 200
"""Commands of a stream that may be sent once more."""


@dataclass(frozen=True)
class Sent:
    """One message to publish."""

    name: str
    """The id of the command; where it has none, what its answer can be told by."""
    type: str
    body: bytes
    key: str | None = None
    has_id: bool = True
    properties: dict[str, Any] = field(default_factory=dict)


class Traffic:
    """An endless stream of messages, the same for the same seed and `stream`.

    Streams share no key, so that several may be published at the same time and each key's commands
    still leave in their order.
    """

    def __init__(self, seed: int, stream: int) -> None:
        self._chosen = Random(f"{seed}/{stream}")
        self._prefix = f"s{stream}"
        self._number = 0
        self._ratings: Counter[str] = Counter()
        self._settled: list[str] = []
        self._passing: deque[tuple[str, int]] = deque()
        self._passed = 0
        self._recent: deque[Sent] = deque(maxlen=REMEMBERED)

    def __iter__(self) -> Iterator[Sent]:
        while True:
            yield self.next()

    def next(self) -> Sent:
        """The next message."""
        roll = self._chosen.random()
        if len(self._settled) < SETTLED_USERS and (roll < 0.1 or not self._settled):
            return self._settle()
        for share, make in _MIX:
            roll -= share
            if roll < 0:
                return make(self)
        return self._update()

    def _settle(self) -> Sent:
        name = f"{self._prefix}-user-{len(self._settled)}"
        self._settled.append(name)
        return self._command("user.create", name, data=_user(name))

    def _update(self) -> Sent:
        name = self._chosen.choice(self._settled)
        self._ratings[name] += 1
        rating = self._ratings[name]
        return self._command(
            "user.update",
            name,
            target={"username": name},
            data={"rating": rating},
        )

    def _order(self) -> Sent:
        name = self._chosen.choice(self._settled)
        return self._command("order.create", name, data={"user": {"username": name}})

    def _pass(self) -> Sent:
        """The next step in the short life of a passing user."""
        if len(self._passing) < 20:
            self._passed += 1
            name = f"{self._prefix}-guest-{self._passed}"
            self._passing.append((name, 1))
            return self._command("user.create", name, data=_user(name))
        name, step = self._passing.popleft()
        if step == 3:
            return self._command("user.delete", name, target={"username": name})
        self._passing.append((name, step + 1))
        target, data = {"username": name}, {"rating": step}
        return self._command("user.update", name, target=target, data=data)

    def _conflict(self) -> Sent:
        name = self._chosen.choice(self._settled)
        data = _user(name) | {"email": f"{name}.{self._number}@example.com"}
        return self._command("user.create", name, data=data)

    def _not_found(self) -> Sent:
        return self._command("order.delete", None, target={"id": 10**12})

    def _version_mismatch(self) -> Sent:
        name = self._chosen.choice(self._settled)
        return self._command(
            "user.update",
            name,
            target={"username": name},
            data={"rating": -1},
            expected_version=2_000_000_000,
        )

    def _invalid(self) -> Sent:
        name = self._chosen.choice(self._settled)
        return self._command("user.update", name, target={"username": name}, data={"colour": 1})

    def _malformed(self) -> Sent:
        """No JSON object; the AMQP property alone says which command it would have been."""
        id_ = self._next_id()
        body = self._chosen.choice([b"", b"{", b"\xff\xfe", b"[1, 2]", b'{"type": NaN}'])
        return Sent(id_, "malformed", body, properties={"message_id": id_})

    def _again(self) -> Sent:
        if not self._recent:
            return self._update()
        return self._chosen.choice(self._recent)

    def _anonymous(self) -> Sent:
        """Without an id, so answered at least once; refused, in words that hold its name."""
        name = f"anonymous-{self._next_id()}"
        body = {"type": "user.update", "target": {"username": name}, "data": {"rating": 1}}
        return Sent(name, "user.update", json.dumps(body).encode(), has_id=False)

    def _command(self, type_: str, key: str | None, **members: Any) -> Sent:
        id_ = self._next_id()
        command = {"id": id_, "type": type_, **({"key": key} if key else {}), **members}
        sent = Sent(id_, type_, json.dumps(command).encode(), key)
        self._recent.append(sent)
        return sent

    def _next_id(self) -> str:
        self._number += 1
        return f"{self._prefix}-{self._number}"


_MIX = (
    (0.45, Traffic._update),
    (0.18, Traffic._pass),
    (0.10, Traffic._order),
    (0.05, Traffic._conflict),
    (0.04, Traffic._not_found),
    (0.04, Traffic._version_mismatch),
    (0.03, Traffic._invalid),
    (0.02, Traffic._malformed),
    (0.04, Traffic._anonymous),
    (0.05, Traffic._again),
)


def _user(name: str) -> dict[str, str]:
    return {"username": name, "email": f"{name}@example.com"}
