"""`worker watch`: follow the events, past ones too."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import Misused, say
from worker.cli.values import duration, moment

if TYPE_CHECKING:
    from worker.broker.client.event_stream import RecordedEvent, Start
    from worker.settings.settings import Settings


def watch(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATTERN",
            help="Show only events whose type fits one of these topic patterns, such as `user.*`, "
            "`*.*.rejected` or `#`: `*` is any one word, `#` any number of words.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHERE",
            help="Where to begin: `first` (all that is kept), `next` (only what comes from now "
            "on), `last` (the last chunk that the broker wrote: the latest event, perhaps with "
            "some before it), an age such as `90s`, `5m`, `2h` or `1d`, or a time with its zone "
            "such as `2026-11-23T08:00:00Z` (at the chunk that was written then, so a few older "
            "events may come first), or an offset.",
        ),
    ] = "next",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after N events.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event's body, one JSON object a line.")
    ] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Print all columns in full on a terminal, too.")
    ] = False,
) -> None:
    """Follow the result events as they are published.

    Reads the event stream, which keeps past events for some days; nothing is taken away from
    anybody. When the broker goes away, it is waited for, and watching goes on where it was.
    Ends by Ctrl-C, or after --limit events.

    On a terminal lines are cut to its width, and columns are left out that find no room. In a pipe
    they are complete.

    \b
    Examples:
      worker watch
      worker watch 'user.*' '*.*.rejected' --from 5m
      worker watch --from 2026-11-23T08:00:00+01:00
      worker watch --from first --limit 100 --json | jq .data
    """
    begin = _start(start)
    settings = read_settings()
    try:
        from worker.cli.events import EventTable, emit_event

        show = emit_event if as_json else EventTable(wide=wide).emit
        complete(_watch(settings, patterns or ["#"], begin, limit, show))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None  # the way to end it


def _start(text: str) -> Start:
    if text in ("first", "next", "last"):
        return text
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    now = datetime.now(UTC)
    time = moment(text, now)
    if time is None and duration(text) is None:
        raise Misused(
            f"--from {text}: give first, next, last, an age such as 90s, 5m, 2h or 1d, a time with "
            "its zone such as 2026-11-23T08:00:00Z, or an offset"
        )
    if time is None or time < datetime.fromtimestamp(0, UTC):
        return "first"  # the age is beyond all years, or the time before what AMQP can say
    if time > now:
        raise Misused(f"--from {text}: is yet to come; for what comes from now on give next")
    return time


async def _watch(
    settings: Settings,
    patterns: list[str],
    start: Start,
    limit: int | None,
    show: Callable[[RecordedEvent], None],
) -> None:
    from contextlib import aclosing

    from worker.broker.client.event_stream import EventStream
    from worker.broker.client.topic_match import matches
    from worker.broker.topology import Topology

    topology = Topology.of(settings)
    stream = EventStream(settings.broker, topology, start, say)
    shown = 0
    async with aclosing(stream.events()) as events:
        async for event in events:
            if not any(matches(pattern, event.routing_key) for pattern in patterns):
                continue
            show(event)
            shown += 1
            if shown == limit:
                return
