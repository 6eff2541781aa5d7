"""A child as its parent sees it, with small programs in a worker's place."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.harness import eventually
from worker.core.backoff import Backoff
from worker.core.errors import Misconfigured
from worker.service.supervisor import child as child_module
from worker.service.supervisor.child import Child, Command
from worker.service.supervisor.log import Log

PRELUDE = """
import json, os, socket, sys, time
line = socket.socket(fileno=int(sys.argv[2]))
def tell(**report): line.sendall(json.dumps(report).encode() + b"\\n")
"""

READY = "tell(ready=True, parts={})\n"
UNTIL_TOLD = "line.recv(1)\n"
MISCONFIGURED = "tell(error='WORKER_LANES=0: too few'); sys.exit(2)\n"


class Attempts:
    """Waits nothing, and remembers the attempts that it was asked about."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def delay(self, attempt: int) -> float:
        self.seen.append(attempt)
        return 0


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    attempts = Attempts()
    monkeypatch.setattr(child_module, "RESTART", attempts)
    return attempts


def program(source: str) -> Command:
    return lambda number, line: [sys.executable, "-c", PRELUDE + source, str(number), str(line)]


def child_of(source: str, *, has_worked: Callable[[], bool] = lambda: False) -> Child:
    log = Log(level="info", as_json=True)
    return Child(1, log, has_worked, program(source))


@asynccontextmanager
async def running(child: Child) -> AsyncIterator[asyncio.Task[int]]:
    task = asyncio.create_task(child.keep_running())
    try:
        yield task
    finally:
        child.pass_on_signal()
        child.kill()
        await asyncio.wait([task], timeout=10)
        assert task.done()


async def test_a_process_that_is_told_to_stop_is_not_started_again(attempts: Attempts) -> None:
    child = child_of(READY + UNTIL_TOLD + "sys.exit(7)")
    async with running(child) as task:
        await eventually(lambda: child.state()["ready"])
        assert child.has_been_ready
        child.pass_on_signal()
        assert await asyncio.wait_for(task, 10) == 7
    assert attempts.seen == []


async def test_a_signal_before_it_listens_is_not_lost() -> None:
    child = child_of("time.sleep(0.2)\n" + UNTIL_TOLD + "sys.exit(7)")
    async with running(child) as task:
        await asyncio.sleep(0)  # it is being started just now
        child.pass_on_signal()
        assert await asyncio.wait_for(task, 10) == 7


async def test_each_signal_comes_as_one_byte() -> None:
    child = child_of("tell(ready=True)\nsys.exit(len(line.recv(1) + line.recv(1)))")
    async with running(child) as task:
        await eventually(lambda: child.state()["ready"])
        child.pass_on_signal()
        child.pass_on_signal()
        assert await asyncio.wait_for(task, 10) == 2


async def test_waits_grow_while_it_keeps_dying(attempts: Attempts) -> None:
    async with running(child_of("sys.exit(1)")):
        await eventually(lambda: len(attempts.seen) >= 4)
    assert attempts.seen[:4] == [1, 2, 3, 4]


async def test_waits_start_over_after_a_steady_time(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "STEADY_SECONDS", 0.0)
    async with running(child_of("sys.exit(1)")):
        await eventually(lambda: len(attempts.seen) >= 3)
    assert set(attempts.seen) == {1}


async def test_while_it_waits_it_says_why_and_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(child_module, "RESTART", Backoff(1e9, 1e9))
    child = child_of("os.kill(os.getpid(), 9)")
    async with running(child) as task:
        state = await eventually(
            lambda: child.state() if "SIGKILL" in child.state()["reason"] else None
        )
        assert not state["ready"]
        assert state["reason"].startswith("was ended by SIGKILL; started again in ")
        assert "pid" not in state
        child.pass_on_signal()
        assert await asyncio.wait_for(task, 10) == 0
    (ended,) = [line for line in capfd.readouterr().err.splitlines() if "process ended" in line]
    assert json.loads(ended)["reason"] == "was ended by SIGKILL"


async def test_a_misconfigured_process_ends_all_with_its_own_sentence(attempts: Attempts) -> None:
    with pytest.raises(Misconfigured, match=r"^WORKER_LANES=0: too few$"):
        await asyncio.wait_for(child_of(MISCONFIGURED).keep_running(), 10)
    with pytest.raises(Misconfigured, match="exit code 2"):
        await asyncio.wait_for(child_of("sys.exit(2)").keep_running(), 10)
    assert attempts.seen == []


async def test_what_once_worked_is_started_again_even_if_it_is_misconfigured(
    attempts: Attempts, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(child_of(MISCONFIGURED, has_worked=lambda: True)):
        await eventually(lambda: len(attempts.seen) >= 2)
    assert "ended with exit code 2: WORKER_LANES=0: too few" in capfd.readouterr().err


async def test_a_program_that_cannot_be_started_is_tried_again(
    attempts: Attempts, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "nothing")
    log = Log(level="info", as_json=True)
    async with running(Child(1, log, lambda: False, lambda *_: [missing])):
        await eventually(lambda: len(attempts.seen) >= 2)
    assert "cannot be started: No such file" in capfd.readouterr().err


async def test_one_that_falls_silent_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    child = child_of("tell(ready=True)\n" + UNTIL_TOLD)
    async with running(child):
        await eventually(lambda: child.state()["ready"])
        monkeypatch.setattr(child_module, "SILENT_SECONDS", 0.0)
        assert child.is_silent
        state = child.state()
        assert not state["ready"]
        assert state["reason"].startswith("silent for over")


async def test_what_it_said_of_its_state_does_not_outlive_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_module, "RESTART", Backoff(1e9, 1e9))
    child = child_of("tell(ready=True)\nline.sendall(b'{\"torn')\nsys.exit(1)")
    async with running(child):
        await eventually(lambda: "exit code 1" in child.state().get("reason", ""))
        assert child.has_been_ready
        assert not child.state()["ready"]


async def test_a_grandchild_that_keeps_the_line_open_does_not_hide_the_end(
    attempts: Attempts,
) -> None:
    held = (
        "os.set_inheritable(line.fileno(), True)\nif os.fork() == 0: time.sleep(5); os._exit(0)\n"
    )
    async with running(child_of(held + "sys.exit(1)")):
        await eventually(lambda: attempts.seen, within=4)
