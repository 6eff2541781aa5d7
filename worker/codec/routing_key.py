"""The routing key of a command, by which it is shared out among the partitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

import structlog

from worker.core.messages import Envelope, new_id
from worker.core.text import MAX_SHORT_STRING
from worker.telemetry.instruments import Instrument, Reading

log = structlog.get_logger(__name__)

MISROUTED = Instrument(
    "worker.commands.misrouted",
    "counter",
    "{command}",
    "Commands whose routing key is not their ordering key; only with partitions.",
)


def routing_key_of(key: str | None, type_: str) -> str:
    """The routing key of a command: its ordering key.

    One that is too long for AMQP is hashed; a command without one has its type.
    """
    if key is None:
        return short(type_)
    fits = len(key.encode("utf-8", "replace")) <= MAX_SHORT_STRING
    return key if fits else sha256(key.encode("utf-8", "replace")).hexdigest()


def short(text: str) -> str:
    """The text if it fits into an AMQP short string, else a fresh id in its place."""
    return text if len(text.encode("utf-8", "replace")) <= MAX_SHORT_STRING else new_id()


class RoutingWatch:
    """Counts commands that were not shared out by their ordering key, and says so of the first."""

    def __init__(self) -> None:
        self.misrouted = 0

    def look(self, envelope: Envelope) -> None:
        """Compare the routing key of a command with its ordering key."""
        if envelope.key is None:
            return
        if routing_key_of(envelope.key, "").encode("utf-8", "replace") == (
            envelope.delivery.routing_key
        ):
            return
        self.misrouted += 1
        if self.misrouted == 1:
            log.warning(
                "the routing key of a command is not its ordering key: across workers only "
                "commands with equal routing keys keep their order",
                type=envelope.type,
                id=envelope.id,
            )

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instrument, for `/metrics`."""
        yield MISROUTED, [({}, self.misrouted)]
