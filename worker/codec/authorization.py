"""Who may send what: by the account that the broker has vouched for.

RabbitMQ refuses a message whose property `user_id` is not the name of the account that publishes
it; so where the property stands, it is true. Where it does not stand nobody is known, and only what
everybody may send is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from worker.core.errors import Forbidden, Misconfigured
from worker.core.messages import Barred, Fault, Item, Problem

EVERYBODY = "*"

Rules = Mapping[str, Iterable[str]]
"""By account, or `*` for everybody: `entity.verb`, `entity.*` or `*`."""


class Authorization:
    """Bars the commands that their sender may not send; without rules there are none.

    Raises `Misconfigured` where a rule names a command that does not exist: it would allow less
    than whoever wrote it believes.
    """

    def __init__(self, rules: Rules | None, types: Iterable[str]) -> None:
        known = frozenset(types)
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
        envelope = item.envelope
        account = envelope.delivery.user_id
        allowed = self._of(account)
        if envelope.type in allowed if envelope.type is not None else allowed:
            return item
        detail = _detail(account, envelope.type)
        problem = Problem(Forbidden.code, detail, (Fault("", Forbidden.code, detail),))
        # With no key: nothing that a stranger sends may hold up another command, nor wait for one.
        return Barred(replace(envelope, key=None), problem)

    def _of(self, account: str | None) -> frozenset[str]:
        assert self._allowed is not None
        everybodys = self._allowed.get(EVERYBODY, frozenset())
        return everybodys if account is None else everybodys | self._allowed.get(account, _NOTHING)


_NOTHING: frozenset[str] = frozenset()


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
