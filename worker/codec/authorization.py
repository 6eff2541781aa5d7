"""Who may send what: by the account that the broker has vouched for.

RabbitMQ refuses a message whose property `user_id` is not the name of the account that publishes
it; so where the property stands, it is true. Where it does not stand nobody is known, and only what
everybody may send is allowed.

A dead letter that is sent back names who sent it first in a header, which anybody can write. So
that name takes rights away; it lends some only where whoever sends it back may `redrive`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from worker.core.errors import Forbidden, Misconfigured
from worker.core.messages import (
    REDRIVE_HEADER,
    SENDER_HEADER,
    Disallowed,
    ErrorDetail,
    Item,
    Problem,
)

EVERYBODY = "*"
REDRIVE = "redrive"

Rules = Mapping[str, Iterable[str]]
"""By account, or `*` for everybody: `entity.verb`, `entity.*` or `*`; and `redrive`, to send back
what others have sent."""


class Authorization:
    """Bars the commands that their sender may not send; without rules there are none.

    Raises `Misconfigured` where a rule names a command that does not exist: it would allow less
    than whoever wrote it believes.
    """

    def __init__(self, rules: Rules | None, types: Iterable[str]) -> None:
        known = frozenset(types) | {REDRIVE}
        self._allowed: dict[str, frozenset[str]] | None = None
        if rules is not None:
            self._allowed = {
                account: frozenset().union(*(_matching(it, account, known) for it in patterns))
                for account, patterns in rules.items()
            }

    def judge(self, item: Item) -> Item:
        """The item, or in its place one that says that it is barred.

        A message of no known type is let through, to be told what is wrong with it, if its sender
        may send anything at all.
        """
        if self._allowed is None:
            return item
        headers, account = item.envelope.delivery.headers, item.envelope.delivery.user_id
        if REDRIVE_HEADER in headers:
            first = headers.get(SENDER_HEADER)
            return self._judge_redriven(item, first if isinstance(first, str) else None)
        if _allows(self._of(account), item):
            return item
        return _barred(item, _detail(account, item.envelope.type))

    def _judge_redriven(self, item: Item, first: str | None) -> Item:
        """By the account that sent it first, and by that which sends it back unless it may."""
        type_, again = item.envelope.type, item.envelope.delivery.user_id
        if not _allows(self._of(first), item):
            return _barred(item, f"sent back, and judged as first sent: {_detail(first, type_)}")
        if REDRIVE in self._of(again):
            return replace(item, envelope=replace(item.envelope, sender=first))
        if _allows(self._of(again), item):
            return item
        return _barred(item, f"sent back by one that may not {REDRIVE}: {_detail(again, type_)}")

    def _of(self, account: str | None) -> frozenset[str]:
        assert self._allowed is not None
        everybodys = self._allowed.get(EVERYBODY, frozenset())
        return everybodys if account is None else everybodys | self._allowed.get(account, _NOTHING)


_NOTHING: frozenset[str] = frozenset()


def _allows(allowed: frozenset[str], item: Item) -> bool:
    type_ = item.envelope.type
    return type_ in allowed if type_ is not None else bool(allowed - {REDRIVE})


def _barred(item: Item, detail: str) -> Disallowed:
    problem = Problem(Forbidden.code, detail, (ErrorDetail("", Forbidden.code, detail),))
    # With no key: nothing that a stranger sends may hold up another command, nor wait for one.
    return Disallowed(replace(item.envelope, key=None), problem)


def _matching(pattern: str, account: str, known: frozenset[str]) -> frozenset[str]:
    entity, _, verb = pattern.partition(".")
    if pattern == EVERYBODY:
        return known
    found = {it for it in known if it == pattern or (verb == "*" and it.startswith(f"{entity}."))}
    if not found:
        raise Misconfigured(
            f"WORKER_AUTHORIZATION: {pattern!r} of {account!r} allows nothing. There are: "
            f"{', '.join(sorted(known))}; also entity.* and *"
        )
    return frozenset(found)


def _detail(account: str | None, type_: str | None) -> str:
    what = type_ or "commands"
    if account is None:
        return (
            f"{what} may not be sent by just anybody: publish with the AMQP property user_id set "
            "to the name of your account"
        )
    return f"the account {account!r} may not send {what}; WORKER_AUTHORIZATION says who may what"
