"""CloudEvents in binary mode: their attributes stand in headers, their data is the body.

CloudEvents' AMQP binding (1.0.2) prefixes the names with `cloudEvents:` or `cloudEvents_`; the
official Python SDK, for RabbitMQ, with `ce-`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIXES = ("cloudEvents:", "cloudEvents_", "ce-")
MARKS = frozenset(f"{prefix}specversion" for prefix in PREFIXES)
"""Headers of which binary mode has one."""

STRUCTURED = "application/cloudevents"
"""What the content type of structured mode begins with; then the headers only repeat the body."""


def attributes_in(headers: Mapping[str, Any], content_type: str | None) -> dict[str, Any] | None:
    """The attributes of a CloudEvent in binary mode; `None` if the message is none.

    Their values are such as JSON has, too: text for everything but numbers, booleans and flat
    tables.
    """
    if (content_type or "").lower().startswith(STRUCTURED):
        return None
    prefix = next((it for it in PREFIXES if f"{it}specversion" in headers), None)
    if prefix is None:
        return None
    attributes = {
        name.removeprefix(prefix): _plain(value)
        for name, value in headers.items()
        if name.startswith(prefix)
    }
    if content_type:
        attributes["datacontenttype"] = content_type
    return attributes


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, dict) and all(isinstance(inner, _SCALARS) for inner in value.values()):
        return value
    return str(value)


_SCALARS = (str, int, float)


def without_attributes(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers that are no attributes of a CloudEvent."""
    return {name: value for name, value in headers.items() if not name.startswith(PREFIXES)}
