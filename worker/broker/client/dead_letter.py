"""One dead letter: the command that it was, why it is here, and how it is sent once more."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from pamqp.commands import Basic

from worker.broker.protocol.cloudevents import STRUCTURED, attributes_in, without_attributes
from worker.broker.protocol.properties import copy_of
from worker.broker.topology import Topology
from worker.codec.routing_key import routing_key_of
from worker.core.messages import REDRIVE_HEADER, SENDER_HEADER, Publication
from worker.core.text import MAX_SHORT_STRING

_ADDED = frozenset(
    {
        # by the worker, see publications.py
        "x-code",
        "x-detail",
        "x-attempts",
        "x-first-time",
        "x-last-time",
        "x-event-id",
        "x-command-id",
        "x-command-type",
        SENDER_HEADER,
        # by the broker
        "x-death",
        "x-delivery-count",
        "x-acquired-count",
    }
)
_ADDED_PREFIXES = ("x-first-death-", "x-last-death-")


@dataclass(frozen=True)
class StoredDeadLetter:
    """One dead letter; `number` is its place in the queue, from 1."""

    number: int
    body: bytes
    properties: Basic.Properties
    commands: str = ""
    """Name of the queue that commands come from; with a number behind it, of its partitions."""

    @property
    def headers(self) -> dict[str, Any]:
        """All AMQP headers, those that tell of its death included."""
        return dict(self.properties.headers or {})

    @property
    def other_properties(self) -> dict[str, Any]:
        """All AMQP properties that are set, but the headers."""
        return {
            name: value
            for name, value in self.properties
            if value is not None and name != "headers"
        }

    @cached_property
    def content(self) -> dict[str, Any] | None:
        """The body, if it is a JSON object."""
        try:
            content = json.loads(self.body.decode())
        except (ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    @cached_property
    def attributes(self) -> dict[str, Any] | None:
        """Those of a CloudEvent in binary mode, whose data is the body."""
        return attributes_in(self.headers, self.properties.content_type)

    @property
    def members(self) -> dict[str, Any] | None:
        """The members of the command, if its body is a JSON object."""
        if self.attributes is None or (self.body and self.content is None):
            return self.content
        from worker.codec.codec import structured  # late: a list of letters needs none of it

        return structured(self.attributes, self.content)

    @property
    def command_id(self) -> str | None:
        """The id of the command, as far as it can be told."""
        if "x-code" in self._told:
            # The worker has looked. A `message_id` may have been made up by the client library.
            return _first_text(self._told.get("x-command-id"))
        return _first_text(self._claims.get("id"), self.properties.message_id)

    @property
    def command_type(self) -> str | None:
        """The type that the command claims."""
        return _first_text(
            self._told.get("x-command-type"),
            self._claims.get("type"),
            self.properties.message_type,
        )

    @property
    def _claims(self) -> dict[str, Any]:
        """Where the command says what it is."""
        return (self.content if self.attributes is None else self.attributes) or {}

    @property
    def sender(self) -> str | None:
        """The account that sent the command, where it said so.

        The broker vouches for the property, which the worker's copies cannot have.
        """
        return _first_text(self.properties.user_id, self._told.get(SENDER_HEADER))

    @property
    def _told(self) -> dict[str, Any]:
        """The headers, if the worker wrote what tells of the death.

        In what the broker itself moved here, such headers come from the command's sender.
        """
        queue = self._death.get("queue")
        moved = isinstance(queue, str) and f"{queue}.".startswith(f"{self.commands}.")
        return {} if moved else self.headers

    @property
    def code(self) -> str:
        """Why it is here: the worker's code, or the broker's reason such as `delivery-limit`."""
        code = _first_text(self._told.get("x-code"), self._death.get("reason"))
        return (code or "unknown").replace("delivery_limit", "delivery-limit")

    @property
    def detail(self) -> str:
        """Why it is here, in words."""
        detail = _first_text(self._told.get("x-detail"))
        if detail is None and self.code == "delivery-limit":
            return "delivered too often without an answer; set aside by RabbitMQ"
        if detail is None and self.code == "rejected":
            return "set aside by RabbitMQ, which took no dead letter of it; the event says why"
        return detail or ""

    @property
    def time(self) -> str | None:
        """When it came here, in RFC 3339."""
        time = self._death.get("time")
        at = time.isoformat().replace("+00:00", "Z") if isinstance(time, datetime) else None
        return _first_text(self._told.get("x-last-time"), at)

    @property
    def _death(self) -> dict[str, Any]:
        deaths = self.headers.get("x-death")
        latest = deaths[0] if isinstance(deaths, list) and deaths else None
        return latest if isinstance(latest, dict) else {}

    def rewritten(self, members: dict[str, Any]) -> StoredDeadLetter:
        """The letter with these members in place of its own.

        A CloudEvent in binary mode becomes one in structured mode: its members stand in the body.
        Raises `ValueError` for numbers that JSON has not.
        """
        written = replace(self, body=json.dumps(members, allow_nan=False).encode())
        if self.attributes is None:
            return written
        properties = copy.copy(self.properties)
        properties.headers = without_attributes(self.headers)
        properties.content_type = f"{STRUCTURED}+json"
        return replace(written, properties=properties)

    def revived(self, topology: Topology, key: str | None) -> Publication:
        """The command as it was sent, with who sent it in place of what tells of its death.

        `key` is its ordering key.
        """
        headers: dict[str, Any] = {REDRIVE_HEADER: True}
        if self.sender is not None:
            headers[SENDER_HEADER] = self.sender
        properties = copy_of(self.properties, headers, keeps=_is_the_senders)
        # Not all that it came with may be here: what could not be decoded, or was too long, is not.
        if not properties.message_id:
            properties.message_id = _short(self._told.get("x-command-id"))
        if not properties.message_type:
            properties.message_type = _short(self._told.get("x-command-type"))
        return Publication(
            exchange=topology.commands,
            routing_key=routing_key_of(key, self.command_type or ""),
            body=self.body,
            copy_of=properties,
        )


def _is_the_senders(header: str) -> bool:
    return header not in _ADDED and not header.startswith(_ADDED_PREFIXES)


def _short(text: object) -> str | None:
    """The text, if it fits into a property."""
    return text if isinstance(text, str) and len(text.encode()) <= MAX_SHORT_STRING else None


def _first_text(*candidates: object) -> str | None:
    return next((value for value in candidates if isinstance(value, str) and value), None)
