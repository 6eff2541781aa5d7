"""The small frozen values that travel between the steps of the pipeline.

    Delivery ─▶ Command | Rejected ─▶ Job ─▶ Outcome (Done, Refused, DeadLetter, Retry, …)

A command that was read is answered by one `ResultEvent`, the same as published and as stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import urandom
from time import time_ns
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from worker.core.queries import Get, Page

T = TypeVar("T")

REDRIVE_HEADER = "x-redrive"
"""Set by `worker dead-letters redrive`: try a dead-lettered command again."""
SENDER_HEADER = "x-user-id"
"""The account that sent the command of a dead letter, and of one that is sent back, if it said so.
As a property it would have the broker refuse what another account publishes."""


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A frozen dataclass to the type checker, a plain one when it runs.

    A dozen of these are made for each command, and to freeze them in earnest triples that.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


class Source(Protocol):
    """Where a delivery came from, and where it is settled."""

    @property
    def closed(self) -> bool:
        """Whether the subscription is gone; the broker then delivers again by itself."""
        ...

    def begin(self, tag: int) -> None:
        """Work on the delivery begins; a hand-over waits until it is settled or deferred."""
        ...

    def defer(self, tag: int) -> None:
        """Work on the delivery has ended with nothing; it is tried again later."""
        ...

    def settle(self, tag: int) -> None:
        """Let the delivery be acknowledged; does nothing once closed."""
        ...

    def reject(self, tag: int) -> None:
        """Let the broker itself make it a dead letter; does nothing once closed."""
        ...


@value
class Delivery:
    """One AMQP message as it came, body untouched."""

    body: bytes
    tag: int
    source: Source
    message_id: str | None = None
    type: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    content_encoding: str | None = None
    user_id: str | None = None
    """The account that published it, where it says so: the broker lets nobody lie."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None
    """Those of a CloudEvent in binary mode, whose data is the body."""
    routing_key: bytes = b""
    timestamp: int | None = None
    """When it was published, in seconds since 1970, as its publisher says."""
    delivery_count: int = 0
    """How often the broker has delivered it before, as far as it counts."""
    lost: frozenset[str] = frozenset()
    """The AMQP properties that came, and could not be decoded, by the names that pamqp gives."""
    unreadable: str | None = None
    """Why the AMQP properties could not be read, if none of them could."""
    properties: Any = None
    """The AMQP properties in the form that `broker` keeps them in, for a dead letter's copy."""


@value
class ErrorDetail:
    """One thing that is wrong with a command."""

    pointer: str
    """JSON pointer (RFC 6901) into the command, empty for the whole."""
    code: str
    detail: str


@value
class Problem:
    """Why a command was not carried out, for its sender (RFC 9457)."""

    code: str
    detail: str
    errors: tuple[ErrorDetail, ...] = ()


@value
class Envelope:
    """What is known of a message before its meaning is looked at."""

    delivery: Delivery
    id: str | None = None
    type: str | None = None
    """`<entity>.<verb>`, if the entity and the verb exist."""
    key: str | None = None
    """Commands with the same key take effect in the order delivered."""
    digest: bytes = b""
    """SHA-256 over what the command means; equal for equal commands."""
    correlation_id: str | None = None
    reply_to: str | None = None
    sender: str | None = None
    """The account that sent it, if that is known; of what was sent back, the one that did so first,
    where whoever sent it back may speak for others."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """The W3C headers `traceparent` and `tracestate`, passed on to the event."""


@value
class Target:
    """The row that a command is about: one unique field and its value."""

    field: str
    value: Any


@value
class Command:
    """A usable command."""

    envelope: Envelope
    entity: str
    verb: str
    data: Any = None
    """The validated payload model of the entity and verb, `None` for a delete."""
    target: Target | None = None
    expected_version: int | None = None

    @property
    def type(self) -> str:
        """`<entity>.<verb>`."""
        return f"{self.entity}.{self.verb}"


@value
class Rejected:
    """A message that is no usable command, and why."""

    envelope: Envelope
    problem: Problem


@value
class Disallowed:
    """A message that its sender may not send, whatever it says."""

    envelope: Envelope
    problem: Problem


@value
class Query:
    """A usable query, which changes nothing and is answered to its asker alone."""

    envelope: Envelope
    entity: str
    asked: Get | Page


Item = Command | Rejected | Disallowed | Query


@value
class Event:
    """What a handler returns: something happened to a row.

    `type` is the event's type such as `order.approved`; `row` the row it happened to, whose columns
    become the event's data.
    """

    type: str
    row: Any


@value
class ResultEvent:
    """A result event as published: the same id and the same bytes each time."""

    id: str
    type: str
    body: bytes
    replayed: bool = False


@value
class Done:
    """The command took effect."""

    answer: ResultEvent


@value
class Refused:
    """The business said no."""

    answer: ResultEvent


@value
class DeadLetter:
    """The command goes to the dead-letter queue, body untouched."""

    answer: ResultEvent
    code: str
    detail: str
    attempts: int


@value
class Retry:
    """The attempt failed; another may succeed."""

    reason: str
    delay_seconds: float


@value
class Blocked:
    """Not tried: an earlier command with the same key waits for its retry."""


@value
class Unavailable:
    """Undecided: the database was lost. What took effect is in the ledger; run it again later."""

    reason: str


Settled = Done | Refused | DeadLetter
Outcome = Settled | Retry | Blocked | Unavailable


@dataclass(slots=True)
class Job:
    """An item on its way, with what its attempts so far have shown."""

    item: Item
    failures: int = 0
    """Attempts, alone in their transaction, that its handler failed."""
    losses: int = 0
    """Attempts during which a connection to the database broke."""
    waits: int = 0
    """Attempts at which others were in its way: they held its rows, or changed them first."""
    waiting_since: float | None = None
    """When they first were, by the monotonic clock."""
    since: datetime = field(default_factory=utc_now)

    @property
    def envelope(self) -> Envelope:
        """Who sent what."""
        return self.item.envelope

    @property
    def key(self) -> str | None:
        """The ordering key, if there is one."""
        return self.item.envelope.key


def new_id() -> str:
    """A fresh time-ordered identity: UUID version 7 (RFC 9562, section 5.7).

    Time order keeps the ledger's index dense; random keys would scatter it.
    """
    value = (time_ns() // 1_000_000) << 80 | int.from_bytes(urandom(10), "big")
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@value
class Publication:
    """One message to publish, in terms of the topology."""

    exchange: str
    routing_key: str
    body: bytes
    content_type: str | None = None
    type: str | None = None
    correlation_id: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    copy_of: Any = None
    """AMQP properties to take over, in the form that `broker` keeps them in."""
