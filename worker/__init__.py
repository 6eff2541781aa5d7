"""JSON commands in from RabbitMQ, one PostgreSQL transaction each, result events out.

What the file of an entity needs comes from here, and nothing is imported before it is asked for:

    from worker import Conflict, Event, Key, Payload, Row, Verb, crud_entity, fetch
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.core.errors import Conflict, NotFound, Refusal, VersionMismatch
    from worker.core.messages import Command, Event, Target
    from worker.core.models import Base, Row
    from worker.core.payloads import Key, OneLine, Payload, RowId, omitted
    from worker.core.registry import Entity, Reference, Verb
    from worker.processing.crud import crud_entity, fetch
    from worker.settings.settings import Settings, load_settings

__version__ = "0.1.0"
__all__ = [
    "Base",
    "Command",
    "Conflict",
    "Entity",
    "Event",
    "Key",
    "NotFound",
    "OneLine",
    "Payload",
    "Reference",
    "Refusal",
    "Row",
    "RowId",
    "Settings",
    "Target",
    "Verb",
    "VersionMismatch",
    "crud_entity",
    "fetch",
    "load_settings",
    "omitted",
]

_HOMES = (
    "worker.core.errors",
    "worker.core.messages",
    "worker.core.models",
    "worker.core.payloads",
    "worker.core.registry",
    "worker.processing.crud",
    "worker.settings.settings",
)
"""Where the public names live, the lightest first."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = next(
        found for home in _HOMES if (found := getattr(import_module(home), name, None)) is not None
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
