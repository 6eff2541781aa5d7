"""How an event is shown: its own JSON for programs, one aligned line for people."""

from __future__ import annotations

import json
import shutil
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from worker.cli.terminal import coloured, columns, emit, emit_json, json_safe

if TYPE_CHECKING:
    from worker.broker.client.event_stream import Recorded

PROBLEM = "urn:worker:problem:"
_COMMON = frozenset({"id", "version", "created_on", "updated_on"})
WIDEST = 160
"""A line is cut there on a narrower terminal, which wraps it: the command's id stays readable."""


def print_event(event: Recorded, *, as_json: bool) -> None:
    """Print one event of the stream."""
    members = members_of(event.body)
    if as_json:
        if members is None:
            emit_json({"type": event.routing_key, "data_base64": b64encode(event.body).decode()})
        else:
            emit(json_safe(event.body.decode()))
        return
    if members is None:
        members = {"type": event.routing_key, "data": "(no JSON object)"}
    emit(line_of(members))


def members_of(body: bytes) -> dict[str, Any] | None:
    """The body's members, or `None` if it is no JSON object."""
    try:
        members = json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return members if isinstance(members, dict) else None


def problem_of(event: dict[str, Any]) -> dict[str, Any] | None:
    """The problem object of an event whose command was not carried out, else `None`."""
    data = event.get("data")
    is_problem = isinstance(data, dict) and str(data.get("type", "")).startswith(PROBLEM)
    return data if is_problem else None


def line_of(event: dict[str, Any]) -> str:
    """The event on one line: time, type, subject, command, and what it says."""
    problem = problem_of(event)
    text = columns(
        (_text(event.get("time"))[:19].replace("T", " "), 19),
        (_text(event.get("type")), 22),
        (_text(event.get("subject")) or "-", 14),
        (_text(event.get("commandid")) or "-", 36),
        (summary(event), 0),
    )
    if sys.stdout.isatty():
        width = max(WIDEST, shutil.get_terminal_size().columns)
        text = text if len(text) <= width else text[: width - 1] + "…"
    return coloured(text, "red") if problem is not None else text


def summary(event: dict[str, Any]) -> str:
    """What an event says, in short: the problem's detail, or the values of the row."""
    problem = problem_of(event)
    if problem is not None:
        return f"{problem.get('code')}: {problem.get('detail')}"
    data = event.get("data")
    if not isinstance(data, dict):
        return _text(data)
    return " ".join(
        f"{name}={'null' if value is None else _text(value)}"
        for name, value in data.items()
        if name not in _COMMON
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
