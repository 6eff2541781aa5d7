"""How an event is shown: its own JSON for programs, one aligned line for people."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from worker.cli.table import Table, TerminalColumn
from worker.cli.terminal import coloured, emit, emit_json, json_safe, printable
from worker.cli.values import clock, seconds

if TYPE_CHECKING:
    from worker.broker.client.event_stream import RecordedEvent

PROBLEM = "urn:worker:problem:"
_COMMON = frozenset({"id", "version", "created_on", "updated_on"})
COLUMNS = (
    TerminalColumn("TIME", full=19, fitted=8, importance=2),
    TerminalColumn("EVENT", full=22, fitted=22, importance=4),
    TerminalColumn("SUBJECT", full=14, fitted=12, importance=3),
    TerminalColumn("COMMAND", full=36, fitted=36, importance=1),
)


class EventTable:
    """Events as lines of a table; on a terminal it fits, unless it is to be `wide`."""

    def __init__(self, *, wide: bool) -> None:
        self._table = Table(COLUMNS, "WHAT", wide=wide)

    def emit(self, event: RecordedEvent) -> None:
        """Write the event on one line: time, type, subject, command, and what it says."""
        members = members_of(event.body)
        if members is None:
            members = {"type": event.routing_key, "data": "(no JSON object)"}
        time = _text(members.get("time"))
        cells = (
            clock(time) if self._table.fits else seconds(time),
            _text(members.get("type")),
            _text(members.get("subject")) or "-",
            _text(members.get("commandid")) or "-",
            summary(members),
        )
        self._table.emit(cells, colour="red" if problem_of(members) is not None else None)


def emit_event(event: RecordedEvent) -> None:
    """Print an event's JSON on one line."""
    if members_of(event.body) is None:
        emit_json({"type": event.routing_key, "data_base64": b64encode(event.body).decode()})
    else:
        emit(json_safe(event.body.decode()))


def words_of(event: dict[str, Any]) -> str:
    """The event in words: type, the row or else the command, what it says, further faults."""
    problem = problem_of(event)
    about = _text(event.get("subject")) or f"command {_text(event.get('commandid')) or '-'}"
    faults = problem.get("errors") if problem is not None else None
    lines = [f"{_text(event.get('type'))}  {about}  {summary(event)}"]
    if isinstance(faults, list) and len(faults) > 1:
        told = [fault for fault in faults if isinstance(fault, dict)]
        lines += [f"  {fault.get('pointer')} {fault.get('detail')}" for fault in told]
    text = "\n".join(map(printable, lines))
    return text if problem is None else coloured(text, "red")


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
