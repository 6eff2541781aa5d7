"""`worker run --processes N`: a parent that keeps its children running, and none without it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from typing import Any

import aiohttp
import pytest

from dev.servers.processes import table
from tests.support.commandline import CommandLine, Running
from tests.support.harness import Harness, eventually

STARTING = '"event": "process started"'


def lines(running: Running, event: str) -> list[dict[str, Any]]:
    """The log lines of one event."""
    found = (json.loads(line) for line in running.err.splitlines() if line.startswith(b"{"))
    return [line for line in found if line["event"] == event]


def alive(running: Running) -> list[int]:
    """All children that were ever started and still run."""
    here = table()
    return [line["pid"] for line in lines(running, "process started") if line["pid"] in here]


async def health(running: Running, page: str = "readyz") -> tuple[int, dict[str, Any]]:
    """What the parent's pages say."""
    url = await _url(running, page)
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.json()


async def _url(running: Running, page: str) -> str:
    await running.said("health pages of all processes")
    (line,) = lines(running, "health pages of all processes")
    return str(line["url"].replace("readyz", page))


async def _text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.text()


async def all_ready(running: Running) -> dict[str, Any]:
    """Wait until every process is ready; return what the parent says of them, by their numbers."""

    async def processes() -> dict[str, Any] | None:
        assert not running.ended, running.err.decode()
        status, body = await health(running)
        return body["processes"] if status == 200 else None

    return await eventually(processes, within=60)


@pytest.mark.long
async def test_killing_children_under_load_loses_and_doubles_nothing(
    cli: CommandLine, harness: Harness
) -> None:
    async with cli.running("run", "--processes", "2", WORKER_PREFETCH="64") as worker:
        processes = await all_ready(worker)
        assert {line["process"] for line in lines(worker, "ready")} == {1, 2}
        await harness.subscribe()
        publishing = asyncio.create_task(_publish_users(harness, 3_000))
        for number, share in (("1", 500), ("2", 1_500)):
            await eventually(lambda: len(harness.events) >= share, within=60)  # noqa: B023
            os.kill(processes[number]["pid"], signal.SIGKILL)
        ids = await publishing
        await eventually(lambda: ids == {e.command_id for e in harness.events}, within=60)
        again = await all_ready(worker)
        for number, process in processes.items():
            assert again[number]["pid"] != process["pid"]
        result = await worker.end(by=signal.SIGTERM)
    assert result.code == 0
    assert [line["reason"] for line in lines(worker, "process ended")] == [
        "was ended by SIGKILL"
    ] * 2
    assert {event.routing_key for event in harness.events} == {"user.created"}
    assert len({event.body for event in harness.events}) == 3_000
    (rows,) = await harness.rows("SELECT count(*), max(version) AS version FROM users")
    assert (rows["count"], rows["version"]) == (3_000, 1)


async def _publish_users(harness: Harness, count: int) -> set[str]:
    names = [f"user-{number}" for number in range(count)]
    for start in range(0, count, 100):
        await asyncio.gather(
            *(
                harness.send(
                    "user.create", id=name, data={"username": name, "email": f"{name}@example.com"}
                )
                for name in names[start : start + 100]
            )
        )
    return set(names)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_the_first_signal_stops_all_in_order(
    cli: CommandLine, harness: Harness, number: signal.Signals
) -> None:
    async with cli.running("run", "--processes", "3") as worker:
        await all_ready(worker)
        result = await worker.end(by=number)
    assert result.code == 0
    assert {line["process"] for line in lines(worker, "stopped")} == {1, 2, 3}
    assert lines(worker, "stopping at once") == []
    assert alive(worker) == []


async def test_ctrl_c_reaches_the_children_as_well_and_counts_once(
    cli: CommandLine, harness: Harness
) -> None:
    slow = {"WORKER_ENTITIES": "tests.support.slow_entities"}
    async with cli.running("run", "--processes", "2", **slow) as worker:
        await all_ready(worker)
        await harness.send("slow.sleep", target={"id": 1}, data={"seconds": 60})
        await worker.said("asleep")
        worker.press_ctrl_c()
        # The idle one has ended in order, so the busy one has got all there is to get.
        await worker.said('"event": "stopped"')
        await eventually(lambda: len(alive(worker)) == 1)
        assert lines(worker, "stopping at once") == []
        worker.press_ctrl_c()
        result = await worker.end()
    assert result.code == 130
    assert len(lines(worker, "stopping at once")) == 1
    assert "Traceback" not in result.err
    assert alive(worker) == []


@pytest.mark.long
async def test_a_child_that_is_stuck_is_killed_in_the_end(
    cli: CommandLine, harness: Harness
) -> None:
    async with cli.running("run", "--processes", "2") as worker:
        processes = await all_ready(worker)
        os.kill(processes["2"]["pid"], signal.SIGSTOP)
        worker.process.send_signal(signal.SIGTERM)
        # Not before the other one has ended: it would be cut off while it takes leave.
        await eventually(lambda: alive(worker) == [processes["2"]["pid"]])
        result = await worker.end(by=signal.SIGTERM)
    assert result.code == 130
    assert [line["process"] for line in lines(worker, "process killed")] == [2]
    assert alive(worker) == []


async def test_a_child_that_is_stopped_by_itself_is_replaced(
    cli: CommandLine, harness: Harness
) -> None:
    async with cli.running("run", "--processes", "2") as worker:
        before = await all_ready(worker)
        os.kill(before["1"]["pid"], signal.SIGTERM)
        await eventually(lambda: len(lines(worker, "process started")) == 3)
        after = await all_ready(worker)
        assert after["1"]["pid"] != before["1"]["pid"]
        assert after["2"]["pid"] == before["2"]["pid"]
        assert lines(worker, "process ended")[0]["reason"] == "ended with exit code 0"


async def test_no_child_outlives_its_parent(cli: CommandLine, harness: Harness) -> None:
    async with cli.running("run", "--processes", "2") as worker:
        await all_ready(worker)
        assert len(alive(worker)) == 2
        worker.process.kill()
        await eventually(lambda: alive(worker) == [] or None, within=20)
        await worker.end()
    # In order: what is in hand when nobody watches any more is finished all the same.
    assert {line["process"] for line in lines(worker, "stopped")} == {1, 2}


async def test_the_parent_adds_up_the_health_of_its_children(
    cli: CommandLine, harness: Harness
) -> None:
    async with cli.running("run", "--processes", "2") as worker:
        processes = await all_ready(worker)
        assert await health(worker, "livez") == (200, {"alive": True, "silent": []})
        async with (
            aiohttp.ClientSession() as session,
            session.get(processes["2"]["url"]) as response,
        ):
            assert await response.json() == {
                name: processes["2"][name] for name in ("ready", "parts")
            }
        metrics = processes["2"]["url"].replace("readyz", "metrics")
        own = await _text(metrics)
        both = await _text(await _url(worker, "metrics"))
        assert both.count("\nprocess_start_time_seconds") == 2
        assert '\nprocess_start_time_seconds{process="2"} ' in both
        assert "\nprocess_start_time_seconds " in own
        os.kill(processes["1"]["pid"], signal.SIGKILL)

        async def lacks_the_first() -> dict[str, Any] | None:
            status, body = await health(worker)
            return body["processes"] if status == 503 else None

        shown = await eventually(lacks_the_first)
        assert not shown["1"]["ready"]
        assert shown["2"]["ready"]


async def test_what_is_misconfigured_is_told_once_and_not_tried_for_ever(
    cli: CommandLine, empty_database: str
) -> None:
    result = await cli("run", "--processes", "3", code=2, WORKER_DATABASE__URL=empty_database)
    assert result.err.count("error: The database schema is empty") == 1
    assert result.err.count("database schema is empty") == 1
    assert result.err.count(STARTING) == 3


async def test_wrong_settings_are_told_before_anything_is_started(
    cli: CommandLine, harness: Harness
) -> None:
    result = await cli("run", "--processes", "2", code=2, WORKER_LANES="none")
    assert "WORKER_LANES='none'" in result.err
    assert STARTING not in result.err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = await cli("run", "--processes", "2", code=2, WORKER_HEALTH__PORT=str(port))
    assert f"error: WORKER_HEALTH__PORT={port}: cannot listen" in result.err
    assert STARTING not in result.err


async def test_the_parent_is_small(cli: CommandLine, harness: Harness) -> None:
    async with cli.running("run", "--processes", "2", COVERAGE_PROCESS_CONFIG="") as worker:
        await all_ready(worker)
        kilobytes = _resident(worker.process.pid)
        assert kilobytes < 30_000
        assert kilobytes * 2 < _resident(alive(worker)[0])


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1])
