"""Users with a verb whose fault quotes what was sent: `WORKER_ENTITIES` names this module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from worker.core.messages import Command, Event
from worker.core.payloads import Payload
from worker.core.registry import Verb
from worker.entities.order import ORDER
from worker.entities.user import USER


class Text(Payload):
    text: str


async def quote(_: Any, command: Command) -> Event:
    """Fails, with the sender's words."""
    raise RuntimeError(command.data.text)


ENTITIES = [
    replace(USER, verbs={**USER.verbs, "quote": Verb(quote, Text, targeted=False)}),
    ORDER,
]
