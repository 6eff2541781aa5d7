"""Reads the stream of events into the book: what its own queue could not bring to the observer."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path

import pika

from dev.chaos import amqp
from worker.testing.broker_errors import BROKER_AWAY, connect
from worker.testing.journal import JournalWriter
from worker.testing.observer import read_event

MARKER = "chaos.marker"
SILENT_SECONDS = 10


def read_stream(url: str, events: str, book: Path) -> None:
    """Write down all events that the stream holds by now; some may be in the book already.

    A message of our own marks the end; the observer takes it for an event that answers no command.
    """
    mark = uuid.uuid4().hex
    connection = connect(amqp.parameters(url))
    try:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=500)
        properties = pika.BasicProperties(type=MARKER, message_id=mark)
        marker = json.dumps({"id": mark, "type": MARKER, "data": {}}).encode()
        channel.basic_publish(events, MARKER, marker, properties)
        found = []
        for method, theirs, body in channel.consume(
            events, arguments={"x-stream-offset": "first"}, inactivity_timeout=SILENT_SECONDS
        ):
            if method is None or theirs is None or method.delivery_tag is None:
                raise TimeoutError(f"the stream was silent for {SILENT_SECONDS} s")
            channel.basic_ack(method.delivery_tag)
            if theirs.message_id == mark:
                break
            found.append(read_event(theirs, body or b""))
    finally:
        with suppress(*BROKER_AWAY):
            connection.close()
    with JournalWriter(book, "stream") as pen:
        pen.write(*found)
