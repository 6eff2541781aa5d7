"""`worker publish`: one command, confirmed, perhaps with its answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from yarl import URL

from tests.e2e.terminal import at_terminal
from tests.support.commandline import CommandLine, declare
from tests.support.harness import Harness

DELETE = ("publish", "user.delete", "--target", "id=1")


async def test_commands_of_every_form_are_answered(cli: CommandLine, harness: Harness) -> None:
    async with harness.worker():
        created = await cli(
            *("publish", "user.create", "username=123", "email=ann@example.com", "rating=4.5"),
            "--wait",
        )
        event = created.line
        assert event["type"] == "user.created"
        assert event["data"]["username"] == "123"
        assert event["data"]["rating"] == 4.5
        assert created.err == ""

        updated, taken, ordered, missing, again = await asyncio.gather(
            cli(
                *("publish", "user.update", "rating=null", "--target", "username=123", "--wait"),
                *("--expected-version", "1", "--id", "my-own", "--key", "k"),
            ),
            cli(
                *("publish", "user.create", "--data", '{"username": "123"}'),
                *("email=bob@example.com", "--wait"),
                code=3,
            ),
            cli(
                *("publish", "order.create", "user.username=123", "is_completed=true", "--wait"),
            ),
            cli("publish", "user.delete", "--target", "id=99", "--wait", code=3),
            cli(
                *("publish", "user.create", "username=123", "email=ann@example.com", "rating=4.5"),
                *("--id", event["commandid"], "--wait"),
            ),
        )
    assert updated.line["commandid"] == "my-own"
    assert updated.line["data"]["rating"] is None
    assert ordered.line["data"] | {"user_id": 1, "is_completed": True} == ordered.line["data"]
    assert taken.line["type"] == "user.create.rejected"
    assert taken.err == "error: conflict: the username '123' is taken by another user\n"
    assert missing.line["data"]["code"] == "not_found"
    assert missing.err.startswith("error: not_found: ")
    assert again.out == created.out


async def test_any_node_of_several_will_do(cli: CommandLine, harness: Harness) -> None:
    broker = harness.settings.broker
    nodes = f"amqp://guest:s3cret@127.0.0.1:1/,{broker.url.get_secret_value()}"
    async with harness.worker(broker=broker.model_dump() | {"url": nodes}):
        command = ("publish", "user.create", "username=ann", "email=ann@example.com", "--wait")
        answered = await cli(*command, WORKER_BROKER__URL=nodes)
        watched = await cli(
            "watch", "--json", "--from", "first", "--limit", "1", WORKER_BROKER__URL=nodes
        )
    assert answered.line["type"] == "user.created"
    assert answered.err == ""
    assert watched.line["id"] == answered.line["id"]


async def test_without_a_worker_the_command_waits_in_the_queue(
    cli: CommandLine, harness: Harness
) -> None:
    # Nothing is declared yet: the command does that itself.
    sent = await cli("publish", "user.create", "username=ann", "email=ann@example.com")
    assert sent.line.keys() == {"id", "type"}
    assert await harness.waiting() == 1

    given_up = await cli(
        *("publish", "user.delete", "--target", "username=ann", "--id", "late", "--wait"),
        *("--timeout", "0.2"),
        code=5,
    )
    assert "no answer within 0.2 s" in given_up.err
    assert "worker ledger show late" in given_up.err
    assert given_up.out == ""

    await harness.subscribe()  # the worker begins at once
    async with harness.worker():
        assert (await harness.event(sent.line["id"])).routing_key == "user.created"
        late = await harness.event("late")
        assert late.routing_key == "user.deleted"
        message = late.properties
        assert message.correlation_id == "late"


async def test_where_nothing_may_be_declared_it_is_told_what_is_missing(cli: CommandLine) -> None:
    result = await cli(*DELETE, code=2, WORKER_BROKER__DECLARE="false")
    assert "does not exist" in result.err
    assert "WORKER_BROKER__DECLARE" in result.err


@pytest.mark.parametrize(
    ("change", "to", "says"),
    [
        (URL.with_path, "/unheard-of", r"vhost unheard-of not found.*rabbitmqctl add_vhost"),
        (URL.with_password, "s3cret", r"refuses the account or its password.*WORKER_BROKER__URL"),
    ],
)
async def test_what_the_broker_does_not_let_in_is_told(
    cli: CommandLine, harness: Harness, change: Callable[[URL, str], URL], to: str, says: str
) -> None:
    url = str(change(URL(harness.settings.broker.urls[0]), to))

    result = await cli(*DELETE, code=2, WORKER_BROKER__URL=url)

    assert re.search(says, result.err)
    assert "s3cret" not in result.err


async def test_an_exchange_that_leads_nowhere_is_told(cli: CommandLine, harness: Harness) -> None:
    namespace = harness.settings.namespace
    await harness.channel.declare_exchange(f"{namespace}.commands", "topic", durable=True)
    await harness.channel.declare_queue(f"{namespace}.commands", durable=True)
    result = await cli(*DELETE, code=2)
    assert "no queue takes what is published" in result.err


async def test_a_full_queue_is_told(cli: CommandLine, harness: Harness) -> None:
    namespace = harness.settings.namespace
    await harness.channel.declare_exchange(f"{namespace}.commands", "topic", durable=True)
    queue = await harness.channel.declare_queue(
        f"{namespace}.commands",
        durable=True,
        arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
    )
    await queue.bind(f"{namespace}.commands", "#")
    lines = '{"type": "user.delete", "target": {"id": 1}}\n' * 5
    result = await cli("publish", "--file", "-", stdin=lines, code=4)
    assert len(result.lines) == 1
    assert "1 command published, perhaps 4 more" in result.err
    assert "line 2 and 3 more not confirmed: RabbitMQ refuses the message" in result.err


async def test_a_file_of_commands_is_published_in_order(
    cli: CommandLine, harness: Harness, tmp_path: Any
) -> None:
    lines = [
        f'{{"type": "user.create", "data": {{"username": "u{n}", "email": "u{n}@example.com"}}}}'
        for n in range(600)
    ]
    lines[1] = '  {"id": "given", "type": "user.delete", "target": {"id": 1}, "key": "k"}  '
    lines[3] = ""
    lines[4] = '{"id": null, "type": "user.delete", "target": {"id": 9007199254740993}}'
    path = tmp_path / "commands.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    result = await cli("publish", "--file", str(path))
    assert result.err == "599 commands published\n"
    assert len(result.lines) == 599
    assert result.lines[1] == {"id": "given", "type": "user.delete"}

    queue = await harness.channel.get_queue(f"{harness.settings.namespace}.commands")
    ids = []
    for _ in range(599):
        message = await queue.get(no_ack=True)
        assert message.delivery_mode == 2
        assert json.loads(message.body)["id"] == message.correlation_id
        ids.append(message.correlation_id)
    assert ids == [line["id"] for line in result.lines]


async def test_what_comes_slowly_on_stdin_is_published_at_once(
    cli: CommandLine, harness: Harness
) -> None:
    async with cli.running("publish", "--file", "-") as running:
        stdin = running.process.stdin
        assert stdin is not None
        stdin.write(b'{"id": "first", "type": "user.delete", "target": {"id": 1}}\n{"id": "sec')
        assert len(await running.printed(1)) == 1
        stdin.write(b'ond", "type": "user.delete", "target": {"id": 1}}')
        stdin.close()
        result = await running.end()
    assert result.code == 0
    assert [line["id"] for line in result.lines] == ["first", "second"]
    assert await harness.waiting() == 2


async def test_a_bad_line_ends_it_and_those_before_are_published(
    cli: CommandLine, harness: Harness
) -> None:
    good = '{"type": "user.delete", "target": {"id": 1}}\n'
    await declare(harness)
    result = await cli(
        "publish", "--file", "-", stdin=f'{good * 2}{{"type": "user.delete"}}\n{good}', code=2
    )
    assert "2 commands published\n" in result.err
    assert "error: line 3: the worker would refuse it: /target must be an object" in result.err
    assert len(result.lines) == 2
    assert await harness.waiting() == 2


def _create(name: str, **members: str) -> str:
    data = {"username": name, "email": f"{name}@example.com"}
    return json.dumps({"type": "user.create", "data": data, **members}) + "\n"


async def test_each_command_of_a_file_is_answered_in_its_order(
    cli: CommandLine, harness: Harness
) -> None:
    ids = [f"id-{number}" for number in range(600)]
    lines = [_create(f"u{number}", id=id_) for number, id_ in enumerate(ids)]
    lines += [
        _create("u1", id="taken"),
        lines[7],
        '{"id": "none", "type": "user.delete", "target": {"id": 9999}}',
    ]
    async with harness.worker():
        result = await cli("publish", "--file", "-", "--wait", stdin="".join(lines), code=3)

    assert [line["commandid"] for line in result.lines] == [*ids, "taken", "id-7", "none"]
    assert result.lines[7] == result.lines[-2]
    assert [line["type"] for line in result.lines[-3:]] == [
        *("user.create.rejected", "user.created", "user.delete.rejected")
    ]
    assert result.err == "603 commands answered\nerror: 2 of 603 commands were refused\n"


async def test_a_command_of_a_file_that_is_not_answered_is_told(
    cli: CommandLine, harness: Harness
) -> None:
    lines = _create("ann") + _create("bob")
    result = await cli(
        *("publish", "--file", "-", "--wait", "--timeout", "0.3"), stdin=lines, code=5
    )
    assert "0 commands answered, perhaps 2 more published" in result.err
    assert "error: line 1 and 1 more not answered: no answer within 0.3 s" in result.err
    assert await harness.waiting() == 2


async def test_at_a_terminal_it_says_that_it_reads_and_answers_in_words(
    cli: CommandLine, harness: Harness
) -> None:
    async with harness.worker(), at_terminal(cli, "publish", "--file", "-", "--wait") as terminal:
        await terminal.shows("reading commands from the terminal, one JSON object a line")
        terminal.type(_create("ann", id="first"))
        await terminal.shows("user.created  user/1  username=ann email=ann@example.com")
        terminal.type(_create("ann", id="second"))
        await terminal.shows("user.create.rejected  command second  conflict: the username 'ann'")
        terminal.type("\x04")
        assert await terminal.end() == 3
    assert terminal.shown.endswith("2 commands answered\nerror: 1 of 2 commands were refused\n")
    assert "specversion" not in terminal.shown


async def test_on_a_terminal_a_bar_shows_how_far_it_is(cli: CommandLine) -> None:
    terminal, end = os.openpty()
    script = [sys.executable, "-m", "worker", "publish", "--file", "-"]
    process = await asyncio.create_subprocess_exec(
        *script,
        env={**cli.environment, "TERM": "xterm"},
        stdin=asyncio.subprocess.PIPE,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    await process.communicate(b'{"type": "user.delete", "target": {"id": 1}}\n' * 3)
    shown = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert process.returncode == 0
    assert "3 published" in shown
    assert shown.rstrip().endswith("3 commands published")
    assert '"id"' not in shown


async def test_a_line_of_a_file_is_no_longer_than_what_a_worker_reads(
    cli: CommandLine, harness: Harness
) -> None:
    await declare(harness)
    good = '{"type": "user.delete", "target": {"id": 1}}\n'
    endless = good + '{"type": "user.delete", "key": "' + "x" * 1_000_000

    result = await cli(
        "publish", "--file", "-", stdin=endless, code=2, WORKER_MAX_BODY_BYTES="2000"
    )

    assert "line 2: it is longer than WORKER_MAX_BODY_BYTES=2000" in result.err
    assert "1 command published" in result.err
