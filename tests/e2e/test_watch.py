"""`worker watch`: events as they come, from where they are wanted, through outages."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import pytest

from tests.e2e.terminal import at_terminal
from tests.support.commandline import CommandLine, declare, post
from tests.support.harness import Harness, eventually
from worker.testing.proxy import Proxy

CHANNEL_CLOSE = bytes((0, 20, 0, 40))
"""Class and method in AMQP 0-9-1."""

HOSTILE = "\x1b[2J\x07\x9b31m\u202eevil\r\n[bold]x[/bold]"


def event(number: int, type_: str = "user.created") -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": str(number),
        "type": type_,
        "subject": f"user/{number}",
        "time": "2026-11-23T08:00:00.123456Z",
        "commandid": f"command-{number}",
        "data": {"id": number, "username": f"ann-{number}", "rating": None, "version": 1},
    }


async def test_past_events_are_shown_by_pattern_offset_and_number(
    cli: CommandLine, harness: Harness
) -> None:
    await declare(harness)
    problem = {"type": "urn:worker:problem:conflict", "code": "conflict", "detail": "it is taken"}
    for number in range(4):
        await post(harness, "user.created", event(number))
    rejected = event(4, "user.create.rejected") | {"data": problem, "subject": None}
    await post(harness, "user.create.rejected", rejected)

    everything, some, by_offset, by_age, last = await asyncio.gather(
        cli("watch", "--from", "first", "--limit", "5"),
        cli("watch", "*.*.rejected", "#.none", "--from", "first", "--limit", "1", "--json"),
        cli("watch", "--from", "2", "--limit", "1", "--json"),
        cli("watch", "--from", "1h", "--limit", "5", "--json"),
        cli("watch", "--from", "last", "--limit", "1", "--json"),
    )
    lines = everything.out.splitlines()
    assert [line.index("command-") for line in lines] == [lines[0].index("command-")] * 5
    assert lines[0].split() == [
        *("2026-11-23", "08:00:00", "user.created", "user/0", "command-0"),
        *("username=ann-0", "rating=null"),
    ]
    assert lines[4].endswith("conflict: it is taken")
    assert some.lines == [rejected]
    assert by_offset.line["id"] == "2"
    assert [line["id"] for line in by_age.lines] == ["0", "1", "2", "3", "4"]
    assert last.line == rejected
    assert everything.err == f"watching {harness.settings.namespace}.events from first\n"
    watch = ("watch", "--from", "2026-11-23T08:00:00Z", "--limit", "5")
    async with at_terminal(cli, *watch, columns=60, NO_COLOR="1") as terminal:
        assert await terminal.end() == 0
    _, titles, *fitted = terminal.shown.splitlines()
    assert titles.split() == ["EVENT", "SUBJECT", "WHAT"]
    assert [len(line) <= 60 for line in fitted] == [True] * 5
    assert fitted[0].split()[:3] == ["user.created", "user/0", "username=ann-0"]


async def test_what_an_event_holds_cannot_act_on_the_terminal(
    cli: CommandLine, harness: Harness
) -> None:
    await declare(harness)
    hostile = event(0) | {"type": HOSTILE, "commandid": HOSTILE, "data": {HOSTILE: HOSTILE}}
    await post(harness, "user.created", hostile)
    await post(harness, "user.created", b'{\n  "id": "pretty",\r\n  "data": null\n}')
    await post(harness, "user.created", b"\x1b[31m\xff not JSON")
    shown, as_json = await asyncio.gather(
        cli("watch", "--from", "first", "--limit", "3"),
        cli("watch", "--from", "first", "--limit", "3", "--json"),
    )
    for result in (shown, as_json):
        lines = result.out.splitlines()
        assert len(lines) == 3
        assert all(line.isprintable() for line in lines)
    assert "\\x1b[2J\\x07\\x9b31m\\u202eevil\\r\\n[bold]x[/bold]" in shown.out
    assert as_json.lines[0] == hostile
    assert as_json.lines[1] == {"id": "pretty", "data": None}
    assert as_json.lines[2] == {"type": "user.created", "data_base64": "G1szMW3/IG5vdCBKU09O"}


async def test_it_goes_on_after_an_outage_without_gap_or_repetition(
    cli: CommandLine, harness: Harness, proxy: Proxy
) -> None:
    await declare(harness)
    await post(harness, "user.created", event(0))
    async with cli.running("watch", "--json", "--limit", "5") as watch:
        await watch.said("watching")
        for number in (1, 2):
            await post(harness, "user.created", event(number))
        await watch.printed(2)
        proxy.reset()
        await post(harness, "user.created", event(3))
        await watch.said("interrupted, trying again")
        await watch.said("connected again, continuing from offset 3")
        for number in (4, 5):
            await post(harness, "user.created", event(number))
        result = await watch.end()
    assert result.code == 0
    assert [line["id"] for line in result.lines] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("before", [0, 2], ids=["empty", "with-past-events"])
async def test_an_outage_before_the_first_event_loses_none(
    before: int, cli: CommandLine, harness: Harness, proxy: Proxy
) -> None:
    await declare(harness)
    for number in range(before):
        await post(harness, "user.created", event(number))
    sent = proxy.record()
    async with cli.running("watch", "--json", "--limit", "1") as watch:
        await watch.said("watching")
        # It knows where the stream ends once it has closed the channel of its second subscription.
        await eventually(lambda: CHANNEL_CLOSE in sent.rpartition(b"x-stream-offset")[2])
        assert sent.count(b"x-stream-offset") == 2
        proxy.reset()
        await post(harness, "user.created", event(99))
        result = await watch.end()
    assert result.line["id"] == "99"


async def test_ctrl_c_and_a_reader_that_leaves_end_it_quietly(
    cli: CommandLine, harness: Harness
) -> None:
    await declare(harness)
    async with cli.running("watch") as watch:
        await watch.said("watching")
        interrupted = await watch.end(by=signal.SIGINT)
    assert interrupted.code == 0
    assert interrupted.err.count("\n") == 1

    for number in range(20):
        await post(harness, "user.created", event(number))
    pipe = await asyncio.create_subprocess_exec(
        *(
            "bash",
            "-c",
            '"$0" -m worker watch --json --from first | head -2; exit ${PIPESTATUS[0]}',
        ),
        sys.executable,
        env=cli.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    reading = asyncio.create_task(pipe.communicate())
    number = 20
    while not reading.done():  # it notices when it writes
        number += 1
        await post(harness, "user.created", event(number))
        await asyncio.wait({reading}, timeout=0.1)
    out, err = await reading
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["0", "1"]
    assert pipe.returncode == 0
    assert err.count(b"\n") == 1
