"""Bytes to commands, and events to bytes.

`Codec.decode` never raises: whatever comes in becomes a `Command`, or an `Rejected` that says, for
a stranger, everything that is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any

import structlog
from pydantic_core import to_json

from worker.codec.parser import Reading
from worker.codec.query_parser import QueryReading
from worker.codec.strict_json import (
    Malformed,
    Path,
    find_unstorable,
    may_hold_unstorable,
    read_object,
)
from worker.core.errors import words
from worker.core.messages import Delivery, Envelope, Item, Problem, Rejected, ResultEvent, new_id
from worker.core.query_schema import QuerySchemas
from worker.core.registry import Registry

log = structlog.get_logger(__name__)

_VALIDATOR_FAILED = (
    "The rules that check this command failed themselves, so it was set aside as a dead letter; "
    "the service's log says why. Nothing of it took effect."
)
_WHOLE_NUMBER = re.compile(r"[0-9]{1,10}")

_TITLES = {
    "malformed": "The message is not a JSON object in UTF-8",
    "too_large": "The message is too large",
    "unknown_type": "There is no such command",
    "invalid": "The command is not valid",
    "not_found": "What the command names does not exist",
    "conflict": "The command contradicts what is there",
    "version_mismatch": "The row is at another version",
    "id_reused": "The id was used for another command",
    "forbidden": "The sender may not send this command",
    "failed": "The command could not be carried out",
    "timed_out": "The query was not answered in time",
    "busy": "Too many queries are waiting",
    "refused": "The command was refused",
}


class UnserializableEvent(ValueError):
    """An event holds what JSON does not have."""


def _json_of(event: Mapping[str, Any]) -> bytes:
    # As text where JSON has no way to write it: somebody else's row may hold anything.
    try:
        return to_json(event, inf_nan_mode="strings", bytes_mode="base64", fallback=str)
    except Exception as error:  # half of a surrogate pair, a `__str__` that fails
        raise UnserializableEvent(words(error)) from error


class _Nowhere:
    """The source of a command that has not been sent yet."""

    closed = True

    def begin(self, tag: int) -> None:
        """Nothing follows from it."""

    defer = settle = reject = begin


_NOWHERE = _Nowhere()


def structured(attributes: Mapping[str, Any], data: object) -> dict[str, Any]:
    """The members of a CloudEvent in binary mode as structured mode has them.

    Its headers may hold text where a command's member is a number or an object.
    """
    members = {**attributes, "data": data}
    target, version = members.get("target"), members.get("expectedversion")
    if isinstance(target, str):
        with suppress(Malformed):  # then it is refused as what it is
            members["target"] = read_object(Delivery(target.encode(), tag=0, source=_NOWHERE))
    if isinstance(version, str) and _WHOLE_NUMBER.fullmatch(version):
        members["expectedversion"] = int(version)
    return members


class Codec:
    """Reads deliveries and writes events.

    `own_queues` are the names that a `reply_to` must not have: an answer sent there would come back
    as a command, or be taken for a dead letter. Without `takes_queries` there are only commands.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        max_body_bytes: int = 1_048_576,
        source: str = "/worker",
        own_queues: frozenset[str] = frozenset(),
        takes_queries: bool = True,
    ) -> None:
        self._registry = registry
        self._takes_queries = takes_queries
        self._schemas = QuerySchemas(registry)
        self._max_body_bytes = max_body_bytes
        self._source = source
        self._own_queues = own_queues

    def decode(self, delivery: Delivery) -> Item:
        """Read one message, whatever it holds."""
        size = len(delivery.body)
        if size > self._max_body_bytes:
            detail = f"The body has {size} bytes; at most {self._max_body_bytes} are read."
            return Rejected(self._bare_envelope(delivery), Problem("too_large", detail))
        if delivery.attributes is not None:
            return self._decode_binary(delivery, delivery.attributes)
        try:
            members = read_object(delivery)
        except Malformed as error:
            return self._malformed(delivery, error)
        escapes = b"\\u" in delivery.body and may_hold_unstorable(delivery.body)
        unstorable = find_unstorable(members) if escapes else ()
        return self._item(delivery, members, unstorable)

    def _decode_binary(self, delivery: Delivery, attributes: Mapping[str, Any]) -> Item:
        """Read a CloudEvent in binary mode as the same one in structured mode would be read."""
        try:
            data = read_object(delivery) if delivery.body else None
        except Malformed as error:
            return self._malformed(delivery, error)
        members = structured(attributes, data)
        return self._item(delivery, members, find_unstorable(members))

    def _item(
        self, delivery: Delivery, members: dict[str, Any], unstorable: Sequence[Path] = ()
    ) -> Item:
        reading = self._reading(delivery, members, unstorable)
        try:
            if reading.query is None:
                return reading.item()
            query = QueryReading(self._registry, self._own_queues, delivery, members, unstorable)
            return query.read(self._schemas, *reading.query)
        except BaseException as error:  # an entity's own validators may raise whatever they like
            envelope = reading.unchecked_envelope()
            log.exception(
                "a validator failed", type=envelope.type, command=envelope.id, reason=words(error)
            )
            return Rejected(envelope, Problem("failed", _VALIDATOR_FAILED))

    def _reading(
        self, delivery: Delivery, members: dict[str, Any], unstorable: Sequence[Path] = ()
    ) -> Reading:
        return Reading(
            self._registry,
            self._own_queues,
            delivery,
            members,
            unstorable,
            takes_queries=self._takes_queries,
        )

    def _malformed(self, delivery: Delivery, error: Malformed) -> Rejected:
        detail = f"The message cannot be read: {error}."
        return Rejected(self._bare_envelope(delivery), Problem("malformed", detail))

    def key_of(
        self,
        body: bytes,
        type_: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> str | None:
        """The key that orders this command among others; `None` if it is not usable.

        A publisher that gives it as the routing key has its commands in order across workers.
        `type_` is the AMQP property, `attributes` are those of a CloudEvent in binary mode.
        """
        delivery = Delivery(body, tag=0, source=_NOWHERE, type=type_, attributes=attributes)
        return self.decode(delivery).envelope.key

    def decode_unsent(self, body: bytes, *, reply_to: str | None = None) -> Item:
        """Read a command or a query before it is sent, as a worker will."""
        return self.decode(Delivery(body, tag=0, source=_NOWHERE, reply_to=reply_to))

    def _bare_envelope(self, delivery: Delivery) -> Envelope:
        """What the AMQP properties alone tell."""
        members = dict(delivery.attributes or {})
        envelope = self._reading(delivery, members).envelope()
        return replace(envelope, digest=sha256(delivery.body).digest())

    def problem_data(self, problem: Problem) -> dict[str, Any]:
        """The problem as the data of an event (RFC 9457)."""
        return {
            "type": f"urn:worker:problem:{problem.code}",
            "title": _TITLES.get(problem.code, _TITLES["refused"]),
            "detail": problem.detail,
            "code": problem.code,
            "errors": [
                {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail}
                for fault in problem.errors
            ],
        }

    def answer(
        self,
        envelope: Envelope,
        type_: str,
        data: Mapping[str, Any],
        *,
        time: datetime,
        subject: str | None = None,
    ) -> ResultEvent:
        """Write the result event of a command: a CloudEvent in structured mode."""
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": (id_ := new_id()),
            "source": self._source,
            "type": type_,
        }
        if subject is not None:
            event["subject"] = subject
        event["time"] = time
        event["datacontenttype"] = "application/json"
        if envelope.id is not None:
            event["commandid"] = envelope.id
        if envelope.correlation_id is not None:
            event["correlationid"] = envelope.correlation_id
        event["data"] = data
        return ResultEvent(id_, type_, _json_of(event))

    def problem_answer(
        self, envelope: Envelope, suffix: str, problem: Problem, *, time: datetime
    ) -> ResultEvent:
        """Write the event of a command that was not carried out.

        `suffix` is `rejected` or `failed`; a command of no known type is just a `command`.
        """
        type_ = f"{envelope.type or 'command'}.{suffix}"
        return self.answer(envelope, type_, self.problem_data(problem), time=time)
