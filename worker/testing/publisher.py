"""Publishes commands with plain pika until the broker has confirmed each, and keeps book of it.

with Publisher(broker_url, "worker", Path("book")) as publisher:
    publisher.publish({"type": "user.create", "data": {...}})
    publisher.wait()
"""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Self

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic

from worker.testing.broker_errors import RESET_AT_ONCE
from worker.testing.journal import Confirm, JournalWriter, PublishAttempt

RECONNECT_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class _Message:
    id: str
    type: str
    key: str | None
    body: bytes


class CommandPublisher:
    """Publishes in a thread of its own, many at a time, in the order given.

    What was not confirmed when a connection ended, was returned or was refused, is published again
    under the same id, for as long as it takes. `window` bounds how many are unconfirmed at once.
    `name` tells publishers apart that write into one book.
    """

    def __init__(
        self,
        broker_url: str,
        namespace: str,
        book: Path,
        *,
        name: str = "publisher",
        window: int = 500,
    ) -> None:
        self._parameters = pika.URLParameters(broker_url)
        # Links are broken on purpose, so silence must be noticed soon.
        self._parameters.heartbeat = 4
        self._parameters.stack_timeout = self._parameters.socket_timeout = 4
        self._exchange = f"{namespace}.commands"
        self._pen = JournalWriter(book, name)
        self._name = name
        self._window = window
        self._changed = Condition()
        self._waiting: deque[_Message] = deque()
        self._unconfirmed: dict[int, _Message] = {}
        self._returned: set[str] = set()
        self._connection: pika.SelectConnection | None = None
        self._channel: Channel | None = None
        self._stopping = self._awake = False
        self._tag = 0
        self._thread = Thread(target=self._run, name="publisher", daemon=True)

    def publish(self, command: Mapping[str, Any]) -> str:
        """Have a command published; return its id, which is made up if it has none.

        Returns at once; `wait` waits for the confirms.
        """
        id_ = str(command.get("id") or uuid.uuid4().hex)
        body = json.dumps({**command, "id": id_}).encode()
        self._take(_Message(id_, str(command.get("type")), command.get("key"), body))
        return id_

    def publish_body(self, body: bytes, *, id_: str | None = None) -> str:
        """Have any bytes published; the id goes along as the property `message_id`."""
        id_ = id_ or uuid.uuid4().hex
        self._take(_Message(id_, "", None, body))
        return id_

    @property
    def outstanding(self) -> int:
        """How many are not confirmed yet."""
        return len(self._waiting) + len(self._unconfirmed)

    def wait(self, timeout_seconds: float = 30) -> None:
        """Return when all are confirmed; raise `TimeoutError` if that takes too long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.outstanding == 0, timeout_seconds):
                raise TimeoutError(
                    f"{self.outstanding} commands were not confirmed in {timeout_seconds:g} s: "
                    f"is the broker there, and a queue bound to {self._exchange}?"
                )

    def start(self) -> Self:
        """Begin to publish."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Publish no more, confirmed or not."""
        self._stopping = True
        self._wake(self._close)
        self._thread.join()
        self._pen.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _take(self, message: _Message) -> None:
        with self._changed:
            self._waiting.append(message)
            awake, self._awake = self._awake, True
        if not awake:
            self._wake(self._send)

    def _wake(self, what: Any) -> None:
        with self._changed:
            if self._connection is not None:
                self._connection.ioloop.add_callback_threadsafe(what)

    # The inside; all of it runs in the publisher's thread

    def _run(self) -> None:
        while not self._stopping:
            connection = pika.SelectConnection(
                self._parameters,
                on_open_callback=self._opened,
                on_open_error_callback=self._ended,
                on_close_callback=self._ended,
            )
            with self._changed:
                self._connection = connection
            try:
                connection.ioloop.start()
            except RESET_AT_ONCE:
                if self._channel is not None:
                    raise
            with self._changed:
                self._connection = self._channel = None
                # First what went first: some of it may have arrived, none was confirmed.
                self._waiting.extendleft(reversed(self._unconfirmed.values()))
                self._unconfirmed.clear()
            connection.ioloop.close()
            if not self._stopping:
                time.sleep(RECONNECT_SECONDS)

    def _opened(self, connection: pika.SelectConnection) -> None:
        if self._stopping:
            connection.close()
        else:
            connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Channel) -> None:
        self._tag = 0
        self._returned.clear()
        channel.add_on_close_callback(lambda *_: self._close())
        channel.add_on_return_callback(self._was_returned)
        channel.confirm_delivery(self._was_answered, callback=lambda _: self._ready(channel))

    def _ready(self, channel: Channel) -> None:
        self._channel = channel
        self._send()

    def _send(self) -> None:
        if self._channel is None or not self._channel.is_open:
            return
        with self._changed:
            self._awake = False
            count = min(len(self._waiting), self._window - len(self._unconfirmed))
            messages = [self._waiting.popleft() for _ in range(count)]
            tags = range(self._tag + 1, self._tag + 1 + count)
            self._tag += count
            self._unconfirmed.update(zip(tags, messages, strict=True))
        now = time.monotonic()
        # Written down before it is done: a kill in between must not hide an attempt.
        self._pen.write(
            *(PublishAttempt(each.id, each.type, now, each.key, self._name) for each in messages)
        )
        for message in messages:
            properties = pika.BasicProperties(
                content_type="application/json", delivery_mode=2, message_id=message.id
            )
            try:
                # The ordering key, by which partitions share out.
                routing_key = message.key or message.type
                self._channel.basic_publish(
                    self._exchange, routing_key, message.body, properties, mandatory=True
                )
            except AMQPError:  # it has just been closed; all of these go again
                return

    def _was_returned(self, _: Channel, __: Basic.Return, properties: Any, ___: bytes) -> None:
        # The broker confirms it all the same, right after this.
        self._returned.add(properties.message_id)

    def _was_answered(self, frame: Any) -> None:
        answer, tag = frame.method, frame.method.delivery_tag
        with self._changed:
            tags = [tag] if not answer.multiple else [t for t in self._unconfirmed if t <= tag]
            messages = [self._unconfirmed.pop(t) for t in tags]
            refused = [
                each
                for each in messages
                if isinstance(answer, Basic.Nack) or each.id in self._returned
            ]
            self._returned.difference_update(each.id for each in refused)
            self._waiting.extend(refused)
            now = time.monotonic()
            self._pen.write(*(Confirm(m.id, now) for m in messages if m not in refused))
            self._changed.notify_all()
        if refused and self._connection is not None:
            self._connection.ioloop.call_later(RECONNECT_SECONDS, self._send)
        else:
            self._send()

    def _close(self) -> None:
        # pika fails where it is told to close in the middle of a handshake. `_opened` closes then;
        # or the handshake itself comes to nothing, within the seconds that it is given.
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def _ended(self, connection: pika.SelectConnection, _: object) -> None:
        connection.ioloop.stop()
