"""The commands of a file, one JSON object a line, read as they come."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.cli.prepare import known_type
from worker.cli.terminal import Misused

if TYPE_CHECKING:
    from worker.core.messages import Publication
    from worker.core.registry import Registry

CHUNK_BYTES = 256 * 1024
BOM = b"\xef\xbb\xbf"

ToPublication = Callable[[dict[str, Any], bytes], "Publication"]
"""Makes a message of a command's members and bytes; raises `Misused` for one that is unusable."""


@dataclass(frozen=True, slots=True)
class Line:
    """One command of the file."""

    number: int
    members: dict[str, Any]
    publication: Publication


async def read_commands(
    file: int, registry: Registry, most_bytes: int, to_publication: ToPublication
) -> AsyncIterator[Line]:
    """The commands of an open file; raises `Misused` at the first line that is none."""
    number = 0
    async for line in _lines(file, most_bytes):
        number += 1
        text = line.removeprefix(BOM) if number == 1 else line
        if not text.strip():
            continue
        try:
            members, body = _command(text, registry, most_bytes)
            publication = to_publication(members, body)
        except Misused as error:
            raise Misused(f"line {number}: {error}. Nothing after it was published") from None
        yield Line(number, members, publication)


def _command(text: bytes, registry: Registry, most_bytes: int) -> tuple[dict[str, Any], bytes]:
    """A command's members and its bytes, with an id."""
    from worker.codec.strict_json import Malformed, read_json
    from worker.core.messages import new_id

    if len(text) > most_bytes:
        raise Misused(f"it is longer than WORKER_MAX_BODY_BYTES={most_bytes}")
    try:
        members = read_json(text.decode())
    except UnicodeDecodeError as error:
        raise Misused(f"byte {error.start + 1} is not UTF-8") from None
    except Malformed as error:
        raise Misused(str(error)) from None
    if not isinstance(members, dict):
        raise Misused("it is no JSON object")
    type_ = members.get("type")
    if not isinstance(type_, str):
        raise Misused('it has no "type", such as "user.create"')
    known_type(registry, type_)
    body = text.strip()
    if members.get("id") is None:
        is_null = "id" in members
        members["id"] = new_id()
        if is_null:  # a second one beside it would be refused
            return members, json.dumps(members).encode()
        # The rest of the line stays as it is, down to the digits of its numbers.
        body = b'{"id": ' + json.dumps(members["id"]).encode() + b", " + body[1:].lstrip()
    return members, body


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
