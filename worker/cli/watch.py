"""`worker watch`: follow the events, past ones too."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import Misused, say
from worker.cli.values import duration

if TYPE_CHECKING:
    from worker.broker.client.event_stream import Start
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
            "some before it), an age such as `90s`, `5m`, `2h` or `1d` (at the chunk that was "
            "written then, so a few older events may come first), or an offset.",
        ),
    ] = "next",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="End after N events.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event's body, one JSON object a line.")
    ] = False,
) -> None:
    """Follow the result events as they are published.

    Reads the event stream, which keeps past events for some days; nothing is taken away from
    anybody. When the broker goes away, it is waited for, and watching goes on where it was.
    Ends by Ctrl-C, or after --limit events.

    \b
    Examples:
      worker watch
      worker watch 'user.*' '*.*.rejected' --from 5m
      worker watch --from first --limit 100 --json | jq .data
    """
    begin = _start(start)
    settings = read_settings()
    try:
        complete(_watch(settings, patterns or ["#"], begin, limit, as_json))
    except KeyboardInterrupt:
        raise typer.Exit(0) from None  # the way to end it


def _start(text: str) -> Start:
    if text in ("first", "next", "last"):
        return text
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    age = duration(text)
    if age is None:
        raise Misused(
            f"--from {text}: give first, next, last, an age such as 90s, 5m, 2h or 1d, or an offset"
        )
    try:
        return max(datetime.now(UTC) - age, datetime.fromtimestamp(0, UTC))
    except OverflowError:
        return "first"


async def _watch(
    settings: Settings, patterns: list[str], start: Start, limit: int | None, as_json: bool
) -> None:
    from contextlib import aclosing

    from worker.broker.client.event_stream import EventStream
    from worker.broker.client.topic_match import matches
    from worker.broker.topology import Topology
    from worker.cli.events import print_event

    topology = Topology.of(settings)
    stream = EventStream(settings.broker, topology, start, say)
    shown = 0
    async with aclosing(stream.events()) as events:
        async for event in events:
            if not any(matches(pattern, event.routing_key) for pattern in patterns):
                continue
            print_event(event, as_json=as_json)
            shown += 1
            if shown == limit:
                return
