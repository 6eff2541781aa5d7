"""The publisher: a process of its own, plain pika, no code of the worker.

Every message is confirmed, and published again under the same id until it is. Orders come as JSON
lines on standard input; what was attempted and confirmed goes into the book.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

import pika
from pika.adapters.blocking_connection import BlockingChannel

from dev.chaos.traffic import Sent, Traffic
from worker.testing.broker_errors import BROKER_AWAY, connect, parameters_of
from worker.testing.journal import Confirm, JournalWriter, PublishAttempt

STREAMS = 4
CONFIRM_SECONDS = 20
AGAIN_SECONDS = 0.2
LAST_SECONDS = 60
"""How long, at the end, a message may still go unconfirmed."""


class Records:
    """Writes down what is sent, before it is, and what the broker has taken."""

    def __init__(self, book: Path) -> None:
        self._pen = JournalWriter(book, "publisher")
        # Without an id there is nothing to count by: these have a book of their own.
        self._anonymous = JournalWriter(book / "anonymous", "publisher")
        self._lock = threading.Lock()

    def attempt(self, sent: Sent) -> None:
        """It may arrive from now on."""
        self._write(sent, PublishAttempt(sent.name, sent.type, time.monotonic(), sent.key))

    def confirm(self, sent: Sent) -> None:
        """It has."""
        self._write(sent, Confirm(sent.name, time.monotonic()))

    def _write(self, sent: Sent, entry: PublishAttempt | Confirm) -> None:
        with self._lock:
            (self._pen if sent.has_id else self._anonymous).write(entry)


class Stream(threading.Thread):
    """Publishes one stream of traffic at its rate, and what it is given between."""

    def __init__(
        self, url: str, exchange: str, traffic: Traffic, rate: float, records: Records
    ) -> None:
        super().__init__(daemon=True)
        self._parameters = parameters_of(
            url, heartbeat=5, blocked_connection_timeout=CONFIRM_SECONDS, socket_timeout=3
        )
        self._exchange = exchange
        self._traffic = traffic
        self._every = 1 / rate
        self._records = records
        self._connection: pika.BlockingConnection | None = None
        self.extra: deque[tuple[Sent, int]] = deque()
        self.flowing = threading.Event()
        self.flowing.set()
        self.idle = threading.Event()
        self.stop_at = float("inf")

    def run(self) -> None:
        due = time.monotonic()
        while time.monotonic() < self.stop_at:
            if self.extra:
                self._deliver(*self.extra.popleft())
            elif not self.flowing.is_set():
                self.idle.set()
                time.sleep(0.02)
                self._stay_alive()
                due = time.monotonic()
            elif (wait := due - time.monotonic()) > 0:
                time.sleep(min(wait, 0.02))
            else:
                self.idle.clear()
                due += self._every
                self._deliver(self._traffic.next(), 1)
        self._disconnect()

    def burst(self, count: int) -> None:
        """Have so many of the stream's own messages sent at once."""
        self.extra.extend((self._traffic.next(), 1) for _ in range(count))

    def _deliver(self, sent: Sent, copies: int) -> None:
        self.idle.clear()
        self._records.attempt(sent)
        while True:
            try:
                self._publish(sent, copies)
            except BROKER_AWAY:
                self._disconnect()
                if time.monotonic() > self.stop_at + LAST_SECONDS:
                    return
                time.sleep(AGAIN_SECONDS)
            else:
                self._records.confirm(sent)
                return

    def _publish(self, sent: Sent, copies: int) -> None:
        """Raise unless the broker confirms it."""
        if self._connection is None:
            self._connection = connect(self._parameters)
            self._confirmed = self._connection.channel()
            self._confirmed.confirm_delivery()
            self._plain = self._connection.channel()
        for _ in range(copies - 1):
            self._send(self._plain, sent)
        self._send(self._confirmed, sent)

    def _send(self, channel: BlockingChannel, sent: Sent) -> None:
        properties = pika.BasicProperties(
            delivery_mode=2, content_type="application/json", **sent.properties
        )
        # The ordering key, by which partitions share out; what has none goes anywhere.
        routing_key = sent.key or sent.name
        channel.basic_publish(self._exchange, routing_key, sent.body, properties, mandatory=True)

    def _stay_alive(self) -> None:
        if self._connection is not None:
            try:
                self._connection.process_data_events(0)
            except BROKER_AWAY:
                self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*BROKER_AWAY):
                connection.close()


class Publisher:
    """All streams, and the orders for them."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams

    def run(self) -> None:
        """Publish until told to stop, or until nobody is there to tell."""
        for stream in self._streams:
            stream.start()
        for line in sys.stdin:
            order = json.loads(line)
            if order["do"] == "stop":
                break
            print(json.dumps(self._obey(order)), flush=True)
        now = time.monotonic()
        for stream in self._streams:
            stream.stop_at = now
        for stream in self._streams:
            stream.join(LAST_SECONDS + CONFIRM_SECONDS)
        print(json.dumps({"stopped": True}), flush=True)

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        match order["do"]:
            case "pause":
                for stream in self._streams:
                    stream.idle.clear()
                    stream.flowing.clear()
                idle = all(stream.idle.wait(order["within"]) for stream in self._streams)
                return {"paused": idle}
            case "resume":
                for stream in self._streams:
                    stream.flowing.set()
            case "burst":
                for stream in self._streams:
                    stream.burst(order["count"] // len(self._streams))
            case "send":
                for each in order["messages"]:
                    copies = each.pop("copies", 1)
                    sent = Sent(**(each | {"body": each["body"].encode()}))
                    stream = self._streams[crc32((sent.key or "").encode()) % len(self._streams)]
                    stream.extra.append((sent, copies))
        return {"obeyed": order["do"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="messages a second")
    parser.add_argument("--book", type=Path, required=True)
    parsed = parser.parse_args()
    records = Records(parsed.book)
    streams = [
        Stream(
            parsed.url,
            parsed.exchange,
            Traffic(parsed.seed, number),
            parsed.rate / STREAMS,
            records,
        )
        for number in range(STREAMS)
    ]
    Publisher(streams).run()


if __name__ == "__main__":
    main()
