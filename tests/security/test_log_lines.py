"""Whatever a stranger writes into a message, a log line is one line, printable and not long."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.security.conftest import environment_of
from tests.support.commandline import CommandLine
from tests.support.harness import Harness

FORGED = "2026-01-01T00:00:00.000000Z [error    ] forged"
BIDI = "\u202e\u2066\u2028\u2029\u200f"
"""No control characters to Unicode, so an id may hold them."""
HOSTILE = f"a\r\n{FORGED}\x1b[2J\x1b]0;title\x07\x9b31m{BIDI}\x85\x7f"
LONG = HOSTILE + "long" * 2_500

_OWN_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \[\w+ *\] ")
_OF_TRACEBACK = "  | "

EXPECTED = {
    "created": "user.created",
    "conflict": "user.create.rejected",
    "invalid": "user.create.rejected",
    "forbidden": "order.create.rejected",
    "failed": "user.quote.failed",
    "unknown": "command.rejected",
}


def commands() -> dict[str, dict[str, Any]]:
    """Commands by what they come to."""
    ann = {"username": "ann", "email": "ann@example.com"}
    return {
        "created": {"type": "user.create", "data": ann},
        "conflict": {"type": "user.create", "data": ann},
        "invalid": {"type": "user.create", "data": {"username": LONG, LONG: LONG}},
        "forbidden": {"type": "order.create", "data": {"user": {"username": "ann"}}, "key": BIDI},
        "failed": {"type": "user.quote", "data": {"text": LONG}},
        "unknown": {"type": LONG, "data": {}},
    }


@pytest.fixture
async def impersonators(guarded_broker: PrivateRabbitMQ) -> AsyncIterator[None]:
    """Whoever connects as `guest` may claim to be any other account."""
    tags = functools.partial(asyncio.to_thread, guarded_broker.ctl, "set_user_tags", "guest")
    await tags("administrator", "impersonator")
    yield
    await tags("administrator")


@pytest.mark.parametrize("form", ["json", "console"])
async def test_nothing_that_is_sent_reaches_the_log_raw(
    impersonators: None, guarded: Harness, form: str
) -> None:
    harness = guarded
    environment = environment_of(harness.settings) | {
        "WORKER_ENTITIES": "tests.support.quoting_entities",
        "WORKER_MAX_ATTEMPTS": "2",
        "WORKER_AUTHORIZATION": json.dumps({"*": ["user.*"]}),
    }
    debug = {"WORKER_LOG_FORMAT": form, "WORKER_LOG_LEVEL": "debug"}
    async with CommandLine(environment).running("run", **debug) as worker:
        await worker.said(
            "commands" if form == "console" else '"part": "commands", "event": "ready"'
        )
        await harness.subscribe()
        for name, members in commands().items():
            await publish(harness, members, message_id=f"{name}{BIDI}", correlation_id=BIDI)
            event = await harness.event(f"{name}{BIDI}")
            assert event.routing_key == EXPECTED[name], event.body
            assert event.data.get("code", "created").startswith(name)
        unread: list[dict[str, Any] | str] = [
            {"id": LONG, "type": "user.create"},
            LONG,
            LONG + "\x00",
        ]
        for body in unread:
            await publish(harness, body, message_id=HOSTILE, correlation_id=HOSTILE)
        # What is invalid, unknown or malformed, and what failed.
        await harness.dead_letters(6)
        result = await worker.end(by=signal.SIGTERM)

    assert result.code == 0
    lines = result.err.split("\n")[:-1]
    assert len(lines) > 5
    for line in lines:
        assert line.isprintable(), line
        if form == "json":
            assert isinstance(json.loads(line)["event"], str)
        else:
            assert _OWN_LINE.match(line) or line.startswith(_OF_TRACEBACK), line
            assert not line.startswith(FORGED)
    # Not for want of a chance: what failed tells which command it was, and why; dead letters too.
    assert result.err.count("dead letter ") + result.err.count('"dead letter"') == 6
    assert "attempt failed" in result.err
    assert FORGED in result.err
    assert "longlong" in result.err
    assert "long" * 300 not in result.err


async def publish(harness: Harness, body: dict[str, Any] | str, **properties: Any) -> None:
    await harness.publish(
        body,
        routing_key=HOSTILE,
        reply_to=properties["correlation_id"],
        app_id=HOSTILE,
        user_id=HOSTILE,
        headers={HOSTILE: LONG, "traceparent": LONG, "x-death": LONG},
        **properties,
    )
