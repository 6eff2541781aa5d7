"""`worker health`: exit code 0 or 1, and one line that says why."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from worker.cli import exit_code
from worker.cli import health as command
from worker.service.supervisor.pages import Pages, json_answer
from worker.telemetry.health import Health

Ask = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs the command with these settings; its exit code, and what it said."""

    async def ask(port: int, *options: str, **variables: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["worker", "health", *options])
        for name, value in {"WORKER_HEALTH__PORT": str(port), **variables}.items():
            monkeypatch.setenv(name, value)
        code = await asyncio.to_thread(exit_code)
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.count("\n") == 1
        return code, told.err

    return ask


@asynccontextmanager
async def something_else(answer: bytes | None) -> AsyncIterator[int]:
    """A server that is no worker; without an answer it says nothing. Yields its port."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()


async def test_a_worker_that_is_ready_is_healthy(ask: Ask) -> None:
    async with Health("127.0.0.1", 0) as health:
        health.part("database").up()
        assert await ask(health.port) == (0, "ready\n")
        # Who listens everywhere is asked here, and never through a proxy.
        everywhere = {"WORKER_HEALTH__HOST": "0.0.0.0", "http_proxy": "http://127.0.0.1:1"}
        assert await ask(health.port, "--live", **everywhere) == (0, "alive\n")


async def test_each_part_that_is_not_ready_is_named_with_its_reason(ask: Ask) -> None:
    async with Health("127.0.0.1", 0) as health:
        health.part("database").down("PostgreSQL cannot be reached")
        health.part("events").down("gone")
        health.part("commands").up()
        code, words = await ask(health.port)
        assert (await ask(health.port, "--live"))[0] == 0
    assert code == 1
    assert words.startswith("not ready: database: PostgreSQL cannot be reached (since 2")
    assert "; events: gone" in words
    assert "commands" not in words


async def test_of_several_processes_those_are_named_that_are_not_well(ask: Ask) -> None:
    parts = {"database": {"ready": False, "reason": "away"}, "events": {"ready": True}}
    states = {
        "1": {"ready": True, "parts": {"events": {"ready": True}}},
        "2": {"ready": False, "parts": parts},
        "3": {"ready": False, "reason": "it ended"},
    }

    async def readyz() -> object:
        return json_answer({"ready": False, "processes": states}, well=False)

    async def livez() -> object:
        return json_answer({"alive": False, "silent": [2, 3]}, well=False)

    pages = {"/readyz": readyz, "/livez": livez}
    async with Pages("127.0.0.1", 0, pages) as served:  # type: ignore[arg-type]
        ready, alive = await ask(served.port), await ask(served.port, "--live")
    assert ready == (1, "not ready: process 2, database: away; process 3: it ended\n")
    assert alive == (1, "not alive: no sign of life from process 2, 3\n")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "is no worker"),
        (b"HTTP/1.1 200 OK\r\n\r\n[true]", "is no worker"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "no reason is given"),
        (b"220 mail.example.com\r\n", "is no worker"),
        (b"", "is no worker"),
        (None, "nobody answers"),
    ],
)
async def test_what_is_no_worker_is_not_healthy(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, answer: bytes | None, words: str
) -> None:
    monkeypatch.setattr(command, "ANSWER_SECONDS", 0.2)
    async with something_else(answer) as port:
        code, told = await ask(port)
    assert code == 1
    assert words in told


async def test_without_a_worker_it_says_where_it_asked(ask: Ask) -> None:
    async with something_else(b"") as port:
        pass  # so that nobody listens there now
    code, words = await ask(port)
    assert code == 1
    assert f"nobody answers at http://127.0.0.1:{port}/readyz" in words
    assert "worker run" in words


async def test_settings_that_cannot_be_used_are_told_in_one_line_with_code_1(ask: Ask) -> None:
    unknown = await ask(0)
    wrong = await ask(8765, WORKER_LANES="0", WORKER_LOG_LEVEL="loud")
    assert (unknown[0], wrong[0]) == (1, 1)
    assert "WORKER_HEALTH__PORT=0" in unknown[1]
    assert "WORKER_LANES='0'" in wrong[1]
    assert "WORKER_LOG_LEVEL='loud'" in wrong[1]
