"""Watches from outside, with plain pika, and keeps book: a process of its own.

    python -m worker.testing.observer --broker URL --namespace worker --book DIRECTORY

It binds a durable queue of its own to the events, so that neither a broker that restarts nor a cut
of its own connection hides an event from it, and prints `ready` once nothing can be missed any
more. SIGTERM or Ctrl-C ends it when its queue is empty; the queue is then deleted.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel

from worker.testing.broker_errors import BROKER_AWAY, connect, parameters_of
from worker.testing.journal import JournalWriter, ObservedEvent, digest

RECONNECT_SECONDS = 0.3
IDLE_SECONDS = 0.3
BATCH = 200


class Observer:
    """Writes every event of a namespace into a book, through all that happens to the broker.

    An event is acknowledged after it was written; so one may be written twice, which its message
    id tells, and none is missed.
    """

    def __init__(self, broker_url: str, namespace: str, book: Path) -> None:
        self._parameters = parameters_of(broker_url, heartbeat=4, stack_timeout=4, socket_timeout=4)
        self._exchange = f"{namespace}.events"
        self._queue = f"{namespace}.observer"
        self._pen = JournalWriter(book, "observer")
        self.ready = Flag()
        self._stopping = Flag()

    def run(self) -> None:
        """Observe until `stop` was called and nothing is left in the queue."""
        with self._pen:
            while not self._observe():
                time.sleep(RECONNECT_SECONDS)

    def stop(self) -> None:
        """End once everything that was published has been written down."""
        self._stopping.set()

    def _observe(self) -> bool:
        """Observe until the connection ends; true if all is done."""
        try:
            connection = connect(self._parameters)
            try:
                channel = connection.channel()
                self._declare(channel)
                self.ready.set()
                self._consume(channel)
                channel.queue_delete(self._queue)
            finally:
                if connection.is_open:
                    connection.close()
        except BROKER_AWAY as error:
            print(f"observer: {error!r}, connecting again", file=sys.stderr)  # noqa: T201
            return False
        return True

    def _declare(self, channel: BlockingChannel) -> None:
        channel.exchange_declare(self._exchange, "topic", durable=True)
        # RabbitMQ 4 would drop what it has delivered twenty times.
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
        channel.queue_declare(self._queue, durable=True, arguments=arguments)
        channel.queue_bind(self._queue, self._exchange, "#")
        channel.basic_qos(prefetch_count=2 * BATCH)

    def _consume(self, channel: BlockingChannel) -> None:
        """Write and acknowledge in batches, until stopped and idle."""
        events: list[ObservedEvent] = []
        for method, properties, body in channel.consume(
            self._queue, inactivity_timeout=IDLE_SECONDS
        ):
            if method is None or method.delivery_tag is None:
                if self._stopping.is_set() and _is_empty(channel, self._queue):
                    channel.cancel()
                    return
                continue
            events.append(read_event(properties, body or b""))
            if len(events) >= BATCH or not channel.get_waiting_message_count():
                self._pen.write(*events)
                events.clear()
                channel.basic_ack(method.delivery_tag, multiple=True)


def read_event(properties: Any, body: bytes) -> ObservedEvent:
    """An event as the book has it; what cannot be read is written down without an id."""
    try:
        found = json.loads(body)
        data = found["data"]
        return ObservedEvent(
            command_id=found.get("commandid"),
            event_id=found["id"],
            type=found["type"],
            subject=found.get("subject"),
            code=data.get("code") if "subject" not in found else None,
            data=json.dumps(data),
            digest=digest(body),
            message_id=properties.message_id,
            at=time.monotonic(),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        id_ = (properties.headers or {}).get("commandid")
        message_id = properties.message_id
        return ObservedEvent(
            id_,
            "",
            str(properties.type),
            None,
            None,
            "",
            digest(body),
            message_id,
            time.monotonic(),
        )


def _is_empty(channel: BlockingChannel, queue: str) -> bool:
    return channel.queue_declare(queue, passive=True).method.message_count == 0


def main() -> None:
    """Run one until a signal ends it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", required=True, help="amqp://…")
    parser.add_argument("--namespace", default="worker")
    parser.add_argument("--book", type=Path, required=True, help="a directory")
    options = parser.parse_args()
    observer = Observer(options.broker, options.namespace, options.book)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: observer.stop())
    Thread(target=_tell_when_ready, args=(observer,), daemon=True).start()
    observer.run()


def _tell_when_ready(observer: Observer) -> None:
    observer.ready.wait()
    print("ready", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
