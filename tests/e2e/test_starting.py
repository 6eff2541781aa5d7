"""A stop that comes while `worker run` is still starting is a stop in order."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dev.servers.processes import table
from tests.support.commandline import CommandLine, Result

QUICKLY_SECONDS = 10
"""Less than `shutdown_seconds`, and enough for the imports of a process on a busy machine."""

# Python runs this before all else: the signal comes in the middle of an import.
SIGNAL_AT_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            sys.meta_path.remove(self)
            child = [each for each in sys.argv if each.startswith("--child")]
            if not child:
                os.kill(os.getpid(), signal.{signal})
            elif child[0].startswith("--child=1:"):
                os.kill(os.getppid(), signal.{signal})

sys.meta_path.insert(0, Finder())
"""

BEFORE_THE_PARENT = ["worker.cli", "typer", "worker.settings.settings"]
ALONE = [*BEFORE_THE_PARENT, "worker.service.service", "sqlalchemy.orm", "uvloop"]
PARENT = ["worker.service.supervisor.plan", "worker.service.supervisor.supervisor"]
CHILD = ["worker.service.supervised", "worker.service.service", "uvloop"]


class Signalled:
    """Runs a worker that is signalled when it imports a module."""

    def __init__(self, cli: CommandLine, folder: Path) -> None:
        self._cli = cli
        self._folder = folder

    async def run(self, module: str, *options: str, by: signal.Signals = signal.SIGTERM) -> Result:
        source = SIGNAL_AT_IMPORT.format(module=module, signal=by.name)
        (self._folder / "sitecustomize.py").write_text(source)
        return await self._cli("run", *options, PYTHONPATH=str(self._folder))


@pytest.fixture
def signalled(cli: CommandLine, tmp_path: Path) -> Signalled:
    return Signalled(cli, tmp_path)


@pytest.mark.parametrize("module", ALONE)
async def test_a_process_that_imports_ends_at_once(signalled: Signalled, module: str) -> None:
    result = await signalled.run(module)
    assert result.err == ""


async def test_ctrl_c_is_no_other(signalled: Signalled) -> None:
    result = await signalled.run("sqlalchemy.orm", by=signal.SIGINT)
    assert result.err == ""


@pytest.mark.parametrize("module", BEFORE_THE_PARENT)
async def test_no_process_is_started_any_more(signalled: Signalled, module: str) -> None:
    result = await signalled.run(module, "--processes", "2")
    assert result.err == ""


@pytest.mark.parametrize("module", PARENT)
async def test_a_parent_that_is_not_ready_for_signals_heeds_them_then(
    signalled: Signalled, module: str
) -> None:
    result = await signalled.run(module, "--processes", "2")
    assert children(result) == []


@pytest.mark.long
@pytest.mark.parametrize("module", CHILD)
async def test_children_that_import_end_in_order(signalled: Signalled, module: str) -> None:
    result = await signalled.run(module, "--processes", "2")
    assert len(children(result)) == 2
    assert not {*children(result)} & table().keys()


def children(result: Result) -> list[int]:
    """All that were ever started."""
    found = map(json.loads, result.err.splitlines())
    return [line["pid"] for line in found if line["event"] == "process started"]


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("server", ["BROKER", "DATABASE"])
async def test_who_waits_for_a_server_that_says_nothing_stops(
    cli: CommandLine, server: str, processes: str
) -> None:
    async with silent_port() as (port, asked):
        where = {f"WORKER_{server}__URL": _at(cli, server, port)}
        async with cli.running("run", "--processes", processes, **where) as worker:
            await asyncio.wait_for(asked.wait(), 60)
            began = time.monotonic()
            result = await worker.end(by=signal.SIGTERM)
    assert (result.code, "Traceback" in result.err) == (0, False), result.err
    assert time.monotonic() - began < QUICKLY_SECONDS


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_who_finds_no_server_stops(cli: CommandLine, processes: str) -> None:
    where = {f"WORKER_{server}__URL": _at(cli, server, 1) for server in ("BROKER", "DATABASE")}
    async with cli.running("run", "--processes", processes, **where) as worker:
        await worker.said("not ready")
        began = time.monotonic()
        result = await worker.end(by=signal.SIGTERM)
    assert (result.code, "Traceback" in result.err) == (0, False), result.err
    assert time.monotonic() - began < QUICKLY_SECONDS


def _at(cli: CommandLine, server: str, port: int) -> str:
    scheme, _, rest = cli.environment[f"WORKER_{server}__URL"].partition("://")
    return f"{scheme}://x:x@127.0.0.1:{port}/{rest.partition('/')[2]}"


@asynccontextmanager
async def silent_port() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that takes connections and says nothing, and whether one has come."""
    asked = asyncio.Event()

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        for writer in writers:
            writer.close()
        server.close()
