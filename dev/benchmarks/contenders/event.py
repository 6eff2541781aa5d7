"""The event that every contender publishes: the same members as the worker's."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

TYPE = "user.created"
"""Also the routing key."""


def event(command: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What says that a command was carried out, and the row that came of it."""
    return {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "/bench",
        "type": TYPE,
        "subject": f"user/{data.get('id')}",
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "commandid": command["id"],
        "correlationid": command["id"],
        "data": dict(data),
    }


def event_bytes(command: Mapping[str, Any], data: Mapping[str, Any]) -> bytes:
    """The same as JSON."""
    return json.dumps(event(command, data)).encode()
