"""What the counters say is what was sent, whatever became of it, in one process and in several."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.test_processes import lines
from tests.support.commandline import CommandLine, Running
from tests.support.harness import Harness, eventually

ANN = {"username": "ann", "email": "ann@example.com"}
BIG = {"type": "user.create", "data": {"username": "x" * 3_000}}
USERS = 40

# Commands, how often, and what they come to; one that holds no object stands for itself.
Traffic = list[tuple[Any, int, tuple[str, str, str]]]


def traffic() -> Traffic:
    ann = {"target": {"username": "ann"}}
    return [
        ({"type": "user.update", **ann, "data": {"rating": 1}}, 5, ("user.update", "done", "")),
        ({"type": "user.fail", **ann, "data": {"times": 2}}, 1, ("user.fail", "done", "")),
        ({"type": "user.fail", **ann, "data": {"times": 9}}, 2, _letter("user.fail", "failed")),
        ({"type": "user.create", "data": ANN}, 3, _refused("user.create", "conflict")),
        ({"type": "user.delete", "target": {"id": 9_999}}, 4, _refused("user.delete", "not_found")),
        (
            {"type": "user.update", **ann, "data": {"rating": 2}, "expected_version": 999},
            2,
            _refused("user.update", "version_mismatch"),
        ),
        ({"type": "order.create", "data": {"user": {"username": "ann"}}}, 2, FORBIDDEN),
        ({"type": "user.create", "data": {}}, 3, _letter("user.create", "invalid")),
        ({"type": "user.fly"}, 2, _letter("unknown", "unknown_type")),
        ("{", 3, _letter("unknown", "malformed")),
        (json.dumps(BIG), 2, _letter("unknown", "too_large")),
    ]


def _refused(type_: str, code: str) -> tuple[str, str, str]:
    return type_, "refused", code


def _letter(type_: str, code: str) -> tuple[str, str, str]:
    return type_, "dead_letter", code


FORBIDDEN = _refused("order.create", "forbidden")


async def send(harness: Harness) -> Counter[tuple[str, str, str]]:
    """Publish all of it; return what the counter of commands should say."""
    expected: Counter[tuple[str, str, str]] = Counter()
    ann = await harness.ask("user.create", id="ann", data=ANN)
    assert ann.routing_key == "user.created"
    for number in range(USERS):
        data = {"username": f"u{number}", "email": f"u{number}@example.com"}
        await harness.send("user.create", id=f"u{number}", data=data)
    # Of two at once on two workers, one would be tried again.
    await eventually(lambda: len(harness.events) > USERS, within=60)
    for number in range(USERS // 4):  # duplicates
        data = {"username": f"u{number}", "email": f"u{number}@example.com"}
        await harness.send("user.create", id=f"u{number}", data=data)
    await harness.send("user.delete", id="ann", target={"id": 1})  # an id that was used before
    expected["user.create", "done", ""] = 1 + USERS + USERS // 4
    expected["user.delete", "refused", "id_reused"] = 1
    await eventually(lambda: len(harness.events) >= 2 + USERS + USERS // 4)
    for body, times, becomes in sorted(traffic(), key=lambda each: each[2][0] != "user.fail"):
        for number in range(times):
            is_command = isinstance(body, dict)
            id_ = {"id": f"{becomes}{number}"} if is_command else {}
            await harness.publish(json.dumps(body | id_) if is_command else body)
            if becomes[0] == "user.fail":  # in company its first attempt would not count
                await harness.event(id_["id"])
        expected[becomes] += times
    return expected


async def counters(running: Running, processes: int) -> dict[str, Counter[Any]]:
    """The counters of all processes together, by name and labels."""
    page = "health pages of all processes" if processes > 1 else "health pages"
    (line,) = lines(running, page)
    async with (
        aiohttp.ClientSession() as session,
        session.get(line["url"].replace("readyz", "metrics")) as response,
    ):
        text = await response.text()
    found: dict[str, Counter[Any]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            names = sorted(sample.labels.keys() - {"process"}, reverse=True)  # type, outcome, code
            labels = tuple(sample.labels[name] for name in names)
            found.setdefault(sample.name, Counter())[labels] += round(sample.value)
    return found


@pytest.mark.parametrize("processes", [1, 2])
async def test_the_counters_say_what_was_sent(
    cli: CommandLine, harness: Harness, processes: int
) -> None:
    arguments = ["run"] if processes == 1 else ["run", "--processes", str(processes)]
    async with cli.running(
        *arguments,
        WORKER_ENTITIES="tests.support.probes",
        WORKER_AUTHORIZATION='{"*": ["user.*"]}',
        WORKER_MAX_BODY_BYTES="2000",
        WORKER_RETRY_BASE_SECONDS="0.02",
        WORKER_RETRY_MAX_SECONDS="0.05",
        WORKER_LOG_LEVEL="debug",
    ) as worker:
        await _subscribed(harness, worker, processes)
        expected = await send(harness)
        total = expected.total()
        await eventually(lambda: len(harness.events) >= total, within=60)

        async def settled() -> dict[str, Counter[Any]] | None:
            found = await counters(worker, processes)
            there = found.get("worker_commands_total", Counter())
            return found if there.total() >= total else None

        found = await eventually(settled)
        told = {
            event: [line for line in lines(worker, event) if "outcome" in line]
            for event in ("done", "refused", "dead letter", "retried")
        }
    letters = sum(count for (_, outcome, _), count in expected.items() if outcome == "dead_letter")
    refused = sum(count for (_, outcome, _), count in expected.items() if outcome == "refused")

    assert found["worker_commands_total"] == expected
    assert found["worker_commands_duplicates_total"] == {("user.create",): USERS // 4}
    # One fails twice; two fail five times, the last of which is no retry.
    assert found["worker_commands_retries_total"] == {("user.fail", "RuntimeError"): 2 + 2 * 4}
    assert found["messaging_client_consumed_messages_total"][()] == total
    assert found["messaging_client_sent_messages_total"] == {
        ("event",): total,
        ("dead_letter",): letters,
    }
    assert found["messaging_process_duration_seconds_count"][()] == total
    assert found["worker_group_size_sum"][()] == total + 2 + 2 * 4
    assert found["worker_lanes_max"][()] == 4 * processes
    assert found["worker_ready"] == {(part,): processes for part in (*PARTS, "answers")}
    assert found["worker_broker_connections_total"] == {
        ("commands",): processes,
        ("events",): processes,
    }
    assert found["worker_commands_in_flight"][()] == 0
    assert {name: len(it) for name, it in told.items()} == {
        "done": total - letters - refused,
        "refused": refused,
        "dead letter": letters,
        "retried": 10,
    }


PARTS = ("database", "events", "commands", "topology")


async def _subscribed(harness: Harness, worker: Running, processes: int) -> None:
    async def all_ready() -> bool:
        if sum(line["part"] in PARTS for line in lines(worker, "ready")) < len(PARTS) * processes:
            return False
        found = await counters(worker, processes)
        return found.get("worker_ready", Counter()).total() == (len(PARTS) + 1) * processes

    await eventually(all_ready, within=60, every=0.1)
    await harness.subscribe()
