"""`worker dead-letters`: why each is there; back to be carried out, mended or not; away."""

from __future__ import annotations

import json
from typing import Any

import aio_pika
import pytest

from tests.e2e.terminal import at_terminal
from tests.support.commandline import CommandLine, declare
from tests.support.harness import Harness, eventually


@pytest.fixture
async def letters(harness: Harness) -> list[str]:
    """Ids of five dead letters: two commands without an address, two messages that are none, and
    one that the broker set aside."""
    async with harness.worker():
        for number in (1, 2):
            await harness.ask("user.create", id=f"no-mail-{number}", data={"username": "ann"})
        await harness.publish(
            b'{"id": 7, "type": "\\u001b[2J"}', message_id="ignored", headers={"x-tenant": "t"}
        )
        await harness.publish(b"\x1b[31m\xff", message_id="raw", correlation_id="c")
        await eventually(lambda: len(harness.events) == 4)
    await _dead_letter_by_the_broker(harness)
    return ["no-mail-1", "no-mail-2", "", "raw", "killer"]


async def _dead_letter_by_the_broker(harness: Harness) -> None:
    """What becomes of a command whose workers die again and again."""
    await harness.send("user.delete", id="killer", target={"id": 1})
    queue = await harness.channel.get_queue(f"{harness.settings.namespace}.commands")

    async def take_and_give_back() -> bool:
        message = await queue.get(fail=False)
        if message is not None:
            await message.reject(requeue=True)  # a nack counts for nothing from RabbitMQ 4.3 on
        return await harness.waiting("dead-letters") == 5

    await eventually(take_and_give_back)


async def test_looking_tells_why_and_disturbs_nothing(
    cli: CommandLine, harness: Harness, letters: list[str]
) -> None:
    shown = await cli("dead-letters", "list", "--limit", "2")
    as_json = await cli("dead-letters", "list", "--json")
    assert [line["id"] or "" for line in as_json.lines] == letters
    codes = [line["code"] for line in as_json.lines]
    assert codes == ["invalid", "invalid", "unknown_type", "malformed", "delivery-limit"]
    assert (
        as_json.lines[0]
        | {
            "number": 1,
            "type": "user.create",
            "detail": "/data/email is missing",
            "attempts": 1,
        }
        == as_json.lines[0]
    )
    assert as_json.lines[4]["type"] == "user.delete"
    assert all(line["time"].endswith("Z") for line in as_json.lines)

    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2"]
    assert lines[0].endswith(" no-mail-1" + " " * 29 + "/data/email is missing")
    assert "3 more letters" in shown.err

    hostile, no_json, by_broker, none = [
        await cli("dead-letters", "show", selector, code=code)
        for selector, code in (("3", 0), ("raw", 0), ("killer", 0), ("9", 1))
    ]
    assert hostile.line["headers"]["x-tenant"] == "t"
    assert hostile.line["properties"]["message_id"] == "ignored"
    assert hostile.line["body"] == {"id": 7, "type": "\x1b[2J"}
    assert no_json.line["body_base64"] == "G1szMW3/"
    assert by_broker.line["headers"]["x-death"][0]["reason"] == "delivery_limit"
    assert none.err == "error: there is no dead letter with this id or number: 9 (looked at 5)\n"
    for result in (shown, as_json, hostile, no_json, by_broker):
        assert all(line.isprintable() for line in result.out.splitlines())
    assert await harness.waiting("dead-letters") == 5


async def test_a_letter_keeps_its_number_whatever_was_looked_at(
    cli: CommandLine, letters: list[str]
) -> None:
    """Or else `list`, `show 1` and `redrive 1 --set …` would mend another one than was shown."""
    for look in (("list",), ("show", "1"), ("show", "raw"), ("drop", "2", "--dry-run")):
        await cli("dead-letters", *look)
        listed = await cli("dead-letters", "list", "--limit", "3", "--json")
        assert [line["id"] or "" for line in listed.lines] == letters[:3], look
    await cli("dead-letters", "drop", "2")
    listed = await cli("dead-letters", "list", "--json")
    assert [line["id"] or "" for line in listed.lines] == [letters[0], *letters[2:]]


@pytest.mark.long
async def test_hundreds_keep_their_numbers_over_several_looks(
    cli: CommandLine, harness: Harness
) -> None:
    """RabbitMQ 3.10 gives more than 32 back in any order, unless one takes care."""
    await declare(harness)
    queue, ids = f"{harness.settings.namespace}.dead-letters", [f"c{n}" for n in range(250)]
    for id_ in ids:
        message = aio_pika.Message(json.dumps({"id": id_}).encode())
        await harness.channel.default_exchange.publish(message, queue)
    for look in (("list",), ("show", "c120"), ("drop", "101")):
        await cli("dead-letters", *look)
    listed = await cli("dead-letters", "list", "--limit", "300", "--json")
    assert [line["id"] for line in listed.lines] == ids[:100] + ids[101:]


async def test_letters_are_sent_back_mended(
    cli: CommandLine, harness: Harness, letters: list[str], tmp_path: Any
) -> None:
    change = ("--set", "data.email=ann@example.com", "--set", "data.rating=4.5")
    rehearsed = await cli("dead-letters", "redrive", "no-mail-1", *change, "--dry-run")
    assert rehearsed.line["action"] == "would redrive"
    mended = json.loads(rehearsed.line["body"])
    assert mended["data"] == {"username": "ann", "email": "ann@example.com", "rating": 4.5}
    assert await harness.waiting("dead-letters") == 5
    assert await harness.waiting() == 0

    sent = await cli("dead-letters", "redrive", "no-mail-1", *change)
    assert sent.line == rehearsed.line | {"action": "redriven"}
    assert sent.err == "1 letter sent back\n"
    assert await harness.waiting("dead-letters") == 4

    path = tmp_path / "body.json"
    path.write_text('{"id": "no-mail-2", "type": "user.delete", "target": {"username": "ann"}}')
    await cli("dead-letters", "redrive", "no-mail-2", "--edit", str(path))
    refused = await cli("dead-letters", "redrive", "raw", "--set", "id=x", code=2)
    assert "no JSON object" in refused.err
    async with harness.worker():
        created, deleted = [
            await harness.event(id_, number=2) for id_ in ("no-mail-1", "no-mail-2")
        ]
    assert created.routing_key == "user.created"
    assert created.data["rating"] == 4.5
    assert deleted.routing_key in ("user.deleted", "user.delete.rejected")


async def test_all_are_sent_back_as_they_came(
    cli: CommandLine, harness: Harness, letters: list[str]
) -> None:
    first = await cli("dead-letters", "redrive", "--all", "--limit", "2", "--rate", "1000")
    assert [line["id"] for line in first.lines] == letters[:2]
    rest = await cli("dead-letters", "redrive", "--all")
    assert len(rest.lines) == 3
    assert await harness.waiting("dead-letters") == 0

    queue = await harness.channel.get_queue(f"{harness.settings.namespace}.commands")
    commands = [await queue.get(no_ack=True) for _ in range(5)]
    theirs = [dict(command.headers) for command in commands]
    for headers in theirs:
        # The queue's own, new; RabbitMQ 4 leaves it out.
        assert headers.pop("x-delivery-count", 0) == 0
        assert headers.pop("x-redrive") is True
    assert theirs == [{}, {}, {"x-tenant": "t"}, {}, {}]
    assert commands[2].message_id == "ignored"
    assert commands[3].body == b"\x1b[31m\xff"
    assert commands[3].correlation_id == "c"
    assert json.loads(commands[4].body)["id"] == "killer"
    assert {command.delivery_mode for command in commands} == {2}


async def test_letters_that_cannot_be_edited_are_skipped_and_told(
    cli: CommandLine, harness: Harness, letters: list[str]
) -> None:
    change = ("redrive", "--all", "--set", "data.email=ann@example.com")
    rehearsed = await cli("dead-letters", *change, "--dry-run", code=1)
    assert await harness.waiting() == 0
    sent = await cli("dead-letters", *change, code=1)
    for result, did in ((rehearsed, "would redrive"), (sent, "redriven")):
        assert [line["action"] for line in result.lines] == [did, did, did, "skipped", did]
        assert "is no JSON object" in result.lines[3]["reason"]
    assert sent.err == (
        "4 letters sent back, 1 skipped\n"
        "error: letter 4 is no JSON object, so --set cannot change it; "
        "replace its whole body with --edit\n"
    )
    assert await harness.waiting() == 4
    left = await cli("dead-letters", "list", "--json")
    assert [line["id"] for line in left.lines] == ["raw"]


async def test_what_was_sent_back_and_not_taken_away_takes_effect_once(
    cli: CommandLine, harness: Harness
) -> None:
    """As if redrive had been killed between the publish and the ack."""
    await declare(harness)
    await harness.subscribe()
    data = {"username": "ann", "email": "ann@example.com"}
    body = json.dumps({"id": "once", "type": "user.create", "data": data}).encode()
    for _ in range(2):
        await harness.channel.default_exchange.publish(
            _message(body), f"{harness.settings.namespace}.dead-letters"
        )
    result = await cli("dead-letters", "redrive", "id=once")
    assert len(result.lines) == 2
    async with harness.worker():
        first, second = [await harness.event("once", number=number) for number in (1, 2)]
    assert first.body == second.body
    assert [row["username"] for row in await harness.rows("SELECT username FROM users")] == ["ann"]


def _message(body: bytes) -> Any:
    import aio_pika

    return aio_pika.Message(body, headers={"x-code": "failed", "x-command-id": "once"})


async def test_letters_are_dropped(cli: CommandLine, harness: Harness, letters: list[str]) -> None:
    rehearsed = await cli("dead-letters", "drop", "--all", "--dry-run")
    assert len(rehearsed.lines) == 5

    async def are_back() -> bool:  # a moment after the command that looked at them has ended
        return await harness.waiting("dead-letters") == 5

    await eventually(are_back)
    one = await cli("dead-letters", "drop", "2", "nobody", code=1)
    assert [line["id"] for line in one.lines] == ["no-mail-2"]
    assert "nobody" in one.err
    async with at_terminal(cli, "dead-letters", "drop", "--all", "--limit", "1") as terminal:
        await terminal.shows("Delete the oldest 1 of 4 dead letters for good? [y/N] ")
        terminal.type("\n")
        assert await terminal.end() == 1
        assert terminal.shown.endswith("\nnothing was deleted\n")
    async with at_terminal(cli, "dead-letters", "drop", "--all", "--limit", "1") as terminal:
        await terminal.shows("[y/N] ")
        terminal.type("y\n")
        assert await terminal.end() == 0
        assert "1 letter dropped\n" in terminal.shown
    rest = await cli("dead-letters", "drop", "--all", "--yes")
    assert rest.err == "3 letters dropped\n"
    assert await harness.waiting("dead-letters") == 0
    none = await cli("dead-letters", "list")
    assert none.err == "there are no dead letters\n"
    assert none.out == ""
