"""`worker publish --file`: many commands over one channel, always with some confirms awaited."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.cli.prepare import complete, known_type
from worker.cli.publish import publication_of
from worker.cli.terminal import Misused, Report, counted, say
from worker.core.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.broker.client.client import Sender
    from worker.broker.topology import Topology
    from worker.codec.codec import Codec
    from worker.core.registry import Registry
    from worker.settings.settings import Settings

MOST_UNCONFIRMED = 500
CHUNK_BYTES = 256 * 1024
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One command of the file."""

    number: int
    members: dict[str, Any]
    body: bytes


def publish_file(settings: Settings, path: str) -> None:
    """Publish every command of the file, in order; `-` is stdin."""
    from worker.core.registry import load_registry

    registry = load_registry(settings.entities)
    try:
        file = 0 if path == "-" else os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Misused(f"--file {path}: {error.strerror}") from None
    complete(_publish(settings, registry, file))


async def _publish(settings: Settings, registry: Registry, file: int) -> None:
    from worker.broker.client.client import open_sender
    from worker.broker.topology import Topology
    from worker.codec.codec import Codec

    topology = Topology.of(settings)
    pipeline = Pipeline(topology, Codec(registry))
    try:
        with _progress(os.fstat(file).st_size or None) as advance:
            name = f"{settings.namespace} publish"
            async with open_sender(settings.broker, topology, name) as sender:
                lines = _commands(file, registry, settings.max_body_bytes)
                await pipeline.run(sender, lines, advance)
    finally:
        unsure = f", perhaps {pipeline.unsure:,} more" if pipeline.unsure else ""
        say(f"{counted(pipeline.published, 'command')} published{unsure}")


class Pipeline:
    """Publishes commands in order, and tells of each as soon as the broker has confirmed it."""

    def __init__(self, topology: Topology, codec: Codec) -> None:
        self.published = 0
        self.unsure = 0
        """How many were sent and not, or not yet, confirmed."""
        self._topology = topology
        self._codec = codec
        self._sent: asyncio.Queue[tuple[Line, asyncio.Task[None]] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_UNCONFIRMED)
        # On a terminal the progress bar speaks.
        self._report = None if sys.stdout.isatty() else Report()

    async def run(
        self, sender: Sender, lines: AsyncIterator[Line], advance: Callable[[int], None]
    ) -> None:
        """Publish all, until a line is bad or is not confirmed."""
        feeding = asyncio.create_task(self._feed(sender, lines))
        failures: list[tuple[Line, WorkerError]] = []
        try:
            while (sent := await self._sent.get()) is not None:
                line, sending = sent
                try:
                    await sending
                except WorkerError as error:
                    failures.append((line, error))
                    feeding.cancel()
                else:
                    self.published += 1
                    self.unsure -= 1
                    if self._report is not None:
                        self._report.tell({"id": line.members["id"], "type": line.members["type"]})
                    advance(len(line.body) + 1)
                self._room.release()
            if failures:
                line, first = failures[0]
                more = f" and {len(failures) - 1:,} more" if len(failures) > 1 else ""
                raise type(first)(f"line {line.number}{more} not confirmed: {first}") from first
            await feeding
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self, sender: Sender, lines: AsyncIterator[Line]) -> None:
        try:
            async for line in lines:
                await self._room.acquire()
                publication = publication_of(self._topology, self._codec, line.members, line.body)
                self.unsure += 1
                self._sent.put_nowait((line, asyncio.create_task(sender.send(publication))))
        finally:
            self._sent.put_nowait(None)


async def _commands(file: int, registry: Registry, most_bytes: int) -> AsyncIterator[Line]:
    """The commands of the file; raises `Misused` at the first line that is none."""
    number = 0
    async for line in _lines(file, most_bytes):
        number += 1
        text = line.removeprefix(BOM) if number == 1 else line
        if not text.strip():
            continue
        try:
            yield _command(number, text, registry, most_bytes)
        except Misused as error:
            raise Misused(f"line {number}: {error}. Nothing after it was published") from None


def _command(number: int, text: bytes, registry: Registry, most_bytes: int) -> Line:
    from worker.core.messages import new_id

    if len(text) > most_bytes:
        raise Misused(f"it is longer than WORKER_MAX_BODY_BYTES={most_bytes}")
    try:
        members = json.loads(text.decode())
    except RecursionError:
        raise Misused("it is nested too deeply") from None
    except ValueError as error:
        raise Misused(f"it is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise Misused("it is no JSON object")
    type_ = members.get("type")
    if not isinstance(type_, str):
        raise Misused('it has no "type", such as "user.create"')
    known_type(registry, type_)
    body = text.strip()
    if "id" not in members:
        members["id"] = new_id()
        # The rest of the line stays as it is, down to the digits of its numbers.
        body = b'{"id": ' + json.dumps(members["id"]).encode() + b", " + body[1:].lstrip()
    return Line(number, members, body)


async def _lines(file: int, most_bytes: int) -> AsyncIterator[bytes]:
    """Lines as they come, without waiting for the end of a pipe, nor of a line without end."""
    rest = b""
    while chunk := await _read(file):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > most_bytes + len(BOM):
            break
    if rest:
        yield rest


async def _read(file: int) -> bytes:
    """Some bytes of the file; empty at its end.

    Read by a thread that nobody waits for: an interrupt must not hang until stdin says something.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bytes] = loop.create_future()

    def deliver(chunk: bytes | OSError) -> None:
        if found.done():
            return
        if isinstance(chunk, OSError):
            found.set_exception(Misused(f"--file cannot be read: {chunk.strerror}"))
        else:
            found.set_result(chunk)

    def read() -> None:
        try:
            chunk: bytes | OSError = os.read(file, CHUNK_BYTES)
        except OSError as error:
            chunk = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(deliver, chunk)

    threading.Thread(target=read, daemon=True).start()
    return await found


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that is told of each command's bytes; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    counter = {"commands": 0}
    with Progress(
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.fields[commands]:,} published"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task("", total=total, commands=0)

        def advance(length: int) -> None:
            counter["commands"] += 1
            progress.update(task, advance=length, commands=counter["commands"])

        yield advance
