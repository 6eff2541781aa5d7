"""`worker publish --file`: many commands over one channel, always with some confirms awaited."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from worker.cli.command_lines import Line, read_commands
from worker.cli.outgoing import publication_of
from worker.cli.prepare import complete
from worker.cli.published import Published
from worker.cli.terminal import Misused, counted, say
from worker.core.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.broker.client.client import Client, Reply
    from worker.settings.settings import Settings

MOST_UNCONFIRMED = 500
"""Commands that are sent and not yet confirmed or, where that is waited for, answered."""


def publish_file(settings: Settings, path: str, *, wait: float | None, as_json: bool) -> None:
    """Publish every command of the file, in order; `-` is stdin.

    `wait` is how many seconds the event of each is waited for; with none, only its confirm. Raises
    `CommandRefused` in the end if any was refused.
    """
    try:
        file = 0 if path == "-" else os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Misused(f"--file {path}: {error.strerror}") from None
    if os.isatty(file):
        say("reading commands from the terminal, one JSON object a line; Ctrl-D ends them")
    published = Published(as_json=as_json)
    # Where lines are shown on the terminal, or typed there, a bar would be in their way.
    lines = wait is not None or as_json
    bar = sys.stderr.isatty() and not os.isatty(file) and not (lines and sys.stdout.isatty())
    pipeline = Pipeline(None if bar and sys.stdout.isatty() else published, wait)
    complete(_publish(settings, file, pipeline, bar=bar))
    published.raise_if_refused()


async def _publish(settings: Settings, file: int, pipeline: Pipeline, *, bar: bool) -> None:
    from worker.broker.client.client import open_sender
    from worker.broker.topology import Topology
    from worker.codec.codec import Codec
    from worker.core.registry import load_registry

    registry = load_registry(settings.entities)
    topology = Topology.of(settings)
    codec = Codec(registry, max_body_bytes=settings.max_body_bytes)
    make = partial(publication_of, topology, codec)
    try:
        name = f"{settings.namespace} publish"
        async with open_sender(settings.broker, topology, name) as sender:
            lines = read_commands(file, registry, settings.max_body_bytes, make)
            with _progress(os.fstat(file).st_size or None, shown=bar) as advance:
                await pipeline.run(sender, lines, advance)
    finally:
        say(pipeline.summary())


class Pipeline:
    """Publishes commands in order, and shows each as soon as it is confirmed, or answered.

    With `wait`, the event of each is waited for, that many seconds.
    """

    def __init__(self, published: Published | None, wait: float | None) -> None:
        self._published = published
        self._wait = wait
        self._done = 0
        self._unsure = 0
        self._sent: asyncio.Queue[tuple[Line, asyncio.Task[Reply | None]] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST_UNCONFIRMED)

    async def run(
        self, sender: Client, lines: AsyncIterator[Line], advance: Callable[[int], None]
    ) -> None:
        """Publish all, until a line is bad or is not confirmed, or answered, in time.

        `advance` is told of the bytes of each.
        """
        if self._wait is not None:
            await sender.listen()
        feeding = asyncio.create_task(self._feed(sender, lines))
        failures: list[tuple[Line, WorkerError]] = []
        try:
            while (sent := await self._sent.get()) is not None:
                line, sending = sent
                try:
                    reply = await sending
                except WorkerError as error:
                    failures.append((line, error))
                    feeding.cancel()
                else:
                    self._show(line, reply)
                    advance(len(line.publication.body) + 1)
                self._room.release()
            if failures:
                raise self._failure(failures) from failures[0][1]
            await feeding
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def summary(self) -> str:
        """How many were published, or answered; and how many perhaps, as it is not known."""
        verb = "published" if self._wait is None else "answered"
        unsure = f", perhaps {self._unsure:,} more published" if self._unsure else ""
        return f"{counted(self._done, 'command')} {verb}{unsure}"

    def _show(self, line: Line, reply: Reply | None) -> None:
        self._done += 1
        self._unsure -= 1
        if self._published is None:
            return
        if reply is None:
            self._published.show_confirmed(line.members)
        else:
            self._published.show_answer(reply.body)

    def _failure(self, failures: list[tuple[Line, WorkerError]]) -> WorkerError:
        line, first = failures[0]
        more = f" and {len(failures) - 1:,} more" if len(failures) > 1 else ""
        missing = "confirmed" if self._wait is None else "answered"
        return type(first)(f"line {line.number}{more} not {missing}: {first}")

    async def _feed(self, sender: Client, lines: AsyncIterator[Line]) -> None:
        try:
            async for line in lines:
                await self._room.acquire()
                self._unsure += 1
                self._sent.put_nowait((line, asyncio.create_task(self._send(sender, line))))
        finally:
            self._sent.put_nowait(None)

    async def _send(self, sender: Client, line: Line) -> Reply | None:
        if self._wait is None:
            await sender.send(line.publication)
            return None
        return await sender.ask(line.publication, timeout_seconds=self._wait)


@contextmanager
def _progress(total: int | None, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr that is told of each command's bytes."""
    if not shown:
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
