"""A proxy before RabbitMQ that answers some messages in the broker's place, as a broker might.

    async with AnsweringProxy(url, is_culprit, "406") as proxy:
        …  # a worker on `proxy.url`

What `is_culprit` picks never reaches the broker; everything else does. Confirms are numbered anew,
so that the client sees none that is not its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

import pamqp.frame
from pamqp.commands import Basic, Channel, Connection

IsCulprit = Callable[[Basic.Publish, bytes], bool]
"""Takes the method and the body."""

CLOSES_CHANNEL = ("311", "313", "403", "404", "406", "541")
CLOSES_CONNECTION = ("501", "541 connection")
ANSWERS = (*CLOSES_CHANNEL, *CLOSES_CONNECTION, "nack", "return", "silence")

_START = b"AMQP\x00\x00\x09\x01"


@dataclass
class _Channel:
    publishing: list[bytes] = field(default_factory=list)
    """Frames of the message that is on its way."""
    method: Any = None
    size: int = -1
    body: bytes = b""
    tags: int = 0
    forwarded: list[int] = field(default_factory=list)
    """The client's tag of each message that the broker got."""
    unconfirmed: set[int] = field(default_factory=set)
    """Of those, by the broker's tags."""
    closed: bool = False
    """By the proxy; the client has yet to say that it knows."""
    forgets: bool = False
    """What the broker answers to the proxy's own close is not for the client."""


class AnsweringProxy:
    """Listens on `url`; `answered` is how many messages it has answered in the broker's place."""

    def __init__(self, url: str, is_culprit: IsCulprit, answer: str) -> None:
        self._target = urlsplit(url)
        self.is_culprit = is_culprit
        self.answer = answer
        self.answered = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The broker's, by way of the proxy."""
        account = self._target.netloc.rpartition("@")[0]
        return self._target._replace(netloc=f"{account}@127.0.0.1:{self._port}").geturl()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        host, port = self._target.hostname, self._target.port or 5672
        broker_reader, broker_writer = await asyncio.open_connection(host, port)
        link = _Link(self, writer, broker_writer)
        ways = [
            asyncio.create_task(_pump(reader, link.from_client)),
            asyncio.create_task(_pump(broker_reader, link.from_broker)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            broker_writer.close()


async def _pump(reader: asyncio.StreamReader, take: Callable[[bytes], None]) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            start = await reader.readexactly(7)
            if start.startswith(b"AMQP"):
                take(start + await reader.readexactly(1))
                continue
            size = int.from_bytes(start[3:7], "big")
            take(start + await reader.readexactly(size + 1))


class _Link:
    def __init__(
        self, proxy: AnsweringProxy, client: asyncio.StreamWriter, broker: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._broker = broker
        self._channels: dict[int, _Channel] = {}
        self._ended = False

    def from_client(self, frame: bytes) -> None:
        if frame == _START:
            self._broker.write(frame)
            return
        kind, number = frame[0], int.from_bytes(frame[1:3], "big")
        channel = self._channels.setdefault(number, _Channel())
        if self._ended or (channel.closed and not _is(frame, Channel.Open)):
            return
        if _is(frame, Channel.Open):
            forgets = channel.forgets
            channel = self._channels[number] = _Channel(forgets=forgets)
        if _is(frame, Basic.Publish):
            channel.method = pamqp.frame.unmarshal(frame)[2]
            channel.publishing, channel.size, channel.body = [frame], -1, b""
        elif channel.method is not None and kind in (2, 3):
            channel.publishing.append(frame)
            if kind == 2:
                channel.size = int.from_bytes(frame[11:19], "big")
            else:
                channel.body += frame[7:-1]
        else:
            self._broker.write(frame)
        if channel.method is not None and len(channel.body) == channel.size:
            self._published(number, channel)

    def _published(self, number: int, channel: _Channel) -> None:
        method, body, frames = channel.method, channel.body, channel.publishing
        channel.method, channel.publishing = None, []
        channel.tags += 1
        if not self._proxy.is_culprit(method, body):
            channel.forwarded.append(channel.tags)
            channel.unconfirmed.add(len(channel.forwarded))
            self._broker.write(b"".join(frames))
            return
        self._proxy.answered += 1
        answer = self._proxy.answer
        if answer in CLOSES_CHANNEL:
            channel.closed = channel.forgets = True
            self._tell(number, Channel.Close(int(answer), f"ANSWER {answer}", 60, 40))
            close = Channel.Close(200, "", 0, 0)
            self._broker.write(pamqp.frame.marshal(close, number))
        elif answer in CLOSES_CONNECTION:
            self._ended = True
            code = int(answer.split()[0])
            self._tell(0, Connection.Close(code, f"ANSWER {code}", 60, 40))
            self._client.write_eof()
        elif answer == "nack":
            self._tell(number, Basic.Nack(channel.tags))
        elif answer == "return":
            returned = Basic.Return(312, "NO_ROUTE", method.exchange, method.routing_key)
            self._tell(number, returned)
            self._client.write(b"".join(frames[1:]))
            self._tell(number, Basic.Ack(channel.tags))

    def from_broker(self, frame: bytes) -> None:
        number = int.from_bytes(frame[1:3], "big")
        channel = self._channels.get(number)
        if self._ended or channel is None:
            if not self._ended:
                self._client.write(frame)
            return
        if channel.forgets:
            # All that the broker still said before it knew that the channel was closed.
            channel.forgets = not _is(frame, Channel.CloseOk)
        elif _is(frame, Basic.Ack) or _is(frame, Basic.Nack):
            self._confirmed(number, channel, pamqp.frame.unmarshal(frame)[2])
        else:
            self._client.write(frame)

    def _confirmed(self, number: int, channel: _Channel, answer: Any) -> None:
        """One by one: `multiple` would be about what the broker has never seen as well."""
        last = answer.delivery_tag
        about = {
            tag for tag in channel.unconfirmed if tag == last or (answer.multiple and tag < last)
        }
        channel.unconfirmed -= about
        for tag in sorted(about):
            self._tell(number, type(answer)(channel.forwarded[tag - 1]))

    def _tell(self, number: int, method: Any) -> None:
        self._client.write(pamqp.frame.marshal(method, number))


def _is(frame: bytes, method: Any) -> bool:
    return frame[0] == 1 and int.from_bytes(frame[7:11], "big") == method.index
