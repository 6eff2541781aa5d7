"""WORKER_AUTHORIZATION on a broker with several accounts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest
from aiormq.exceptions import ChannelPreconditionFailed

from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.security.conftest import broker_url_of, environment_of
from tests.support.commandline import CommandLine
from tests.support.harness import Harness, Message
from worker.settings.settings import BrokerSettings, Settings

RULES = {"shop": ["user.*"], "worker_operator": ["*"], "*": ["order.create"]}


class Accounts:
    """Publishes as one account or another."""

    def __init__(self, harness: Harness, server: PrivateRabbitMQ) -> None:
        self._harness = harness
        self._server = server

    async def publish(self, account: str, body: Any, **properties: Any) -> None:
        async with await aio_pika.connect(broker_url_of(self._server, account)) as connection:
            channel = await connection.channel()
            exchange = await channel.get_exchange("worker.commands", ensure=False)
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            await exchange.publish(aio_pika.Message(body, **properties), "any")

    async def ask(self, account: str, user_id: str | None, id_: str, **members: Any) -> Message:
        seen = sum(event.command_id == id_ for event in self._harness.events)
        await self.publish(account, {"id": id_, **members}, user_id=user_id)
        return await self._harness.event(id_, number=seen + 1)


@pytest.fixture
def accounts(restricted: Harness, broker_accounts: PrivateRabbitMQ) -> Accounts:
    return Accounts(restricted, broker_accounts)


@pytest.fixture
async def guard(restricted: Harness, few: dict[str, Any]) -> AsyncIterator[Harness]:
    """A harness whose worker knows who may send what."""
    async with restricted.worker(**few, authorization=RULES):
        yield restricted


def ann(name: str = "ann") -> dict[str, Any]:
    return {"type": "user.create", "data": {"username": name, "email": f"{name}@example.com"}}


async def test_an_account_may_send_what_its_rules_say(guard: Harness, accounts: Accounts) -> None:
    created = await accounts.ask("shop", "shop", "1", **ann())
    refused = await accounts.ask("shop", "shop", "2", type="order.delete", target={"id": 1})
    everybodys = await accounts.ask(
        "worker_operator", None, "3", type="order.create", data={"user": {"username": "ann"}}
    )
    unnamed = await accounts.ask("shop", None, "4", **ann("bob"))

    assert created.routing_key == "user.created"
    assert refused.routing_key == "order.delete.rejected"
    assert refused.data["code"] == "forbidden"
    assert "'shop' may not send order.delete" in refused.data["detail"]
    assert everybodys.routing_key == "order.created"
    assert unnamed.data["code"] == "forbidden"
    assert "user_id" in unnamed.data["detail"]
    # Refused is settled: nothing waits, nothing was set aside, nothing was done.
    assert await guard.dead_letters_so_far() == []
    assert [row["username"] for row in await guard.rows("SELECT username FROM users")] == ["ann"]
    assert [
        row["command_id"]
        for row in await guard.rows("SELECT command_id FROM command_ledger ORDER BY 1")
    ] == ["1", "3"]


async def test_the_broker_lets_nobody_name_another_account(
    guard: Harness, accounts: Accounts
) -> None:
    with pytest.raises(ChannelPreconditionFailed, match="user_id property"):
        await accounts.publish("shop", ann(), user_id="worker_operator")


async def test_what_is_forbidden_cannot_take_an_id_nor_learn_its_answer(
    guard: Harness, accounts: Accounts
) -> None:
    burning = await accounts.ask("shop", None, "mine", **ann("eve"))
    done = await accounts.ask("shop", "shop", "mine", **ann())
    spying = await accounts.ask("shop", None, "mine", **ann())

    assert burning.data["code"] == "forbidden"
    assert done.routing_key == "user.created"
    assert spying.data["code"] == "forbidden"
    assert b"ann@example.com" not in spying.body


async def test_a_stranger_cannot_fill_the_dead_letters(
    restricted: Harness, few: dict[str, Any], accounts: Accounts
) -> None:
    async with restricted.worker(**few, authorization={"shop": ["user.*"]}):
        await accounts.publish("shop", b"no JSON")
        stranger = await restricted.next_event(after=0)
        await accounts.publish("shop", b"no JSON", user_id="shop")
        known = await restricted.next_event(after=1)
        letters = await restricted.dead_letters(1)

    assert (stranger.routing_key, stranger.data["code"]) == ("command.rejected", "forbidden")
    assert known.data["code"] == "malformed"
    assert letters[0].headers["x-user-id"] == "shop"


async def test_the_command_line_says_who_it_is(
    guard: Harness, broker_accounts: PrivateRabbitMQ
) -> None:
    shop = command_line(guard, broker_accounts, "shop")
    refused = await shop("publish", "order.delete", "--target", "id=1", "--wait", code=3)

    assert "may not send order.delete" in refused.err


@pytest.mark.parametrize("operators", [["*"], ["redrive"]], ids=["all", "redrive"])
async def test_what_is_sent_back_is_judged_by_who_sent_it_first(
    restricted: Harness,
    few: dict[str, Any],
    broker_accounts: PrivateRabbitMQ,
    accounts: Accounts,
    operators: list[str],
) -> None:
    operator = command_line(restricted, broker_accounts, "worker_operator")
    redrive = ("dead-letters", "redrive", "1", "--set")
    bad = {"type": "user.create", "data": {"username": "cy"}}
    rules = {"shop": ["user.*"], "worker_operator": operators}
    async with restricted.worker(**few, authorization=rules):
        await accounts.ask("shop", "shop", "mend me", **bad)
        still_bad = await operator(*redrive, "data.email=nonsense")
        await restricted.event("mend me", number=2)
        listed = await operator("dead-letters", "list", "--json")
        await operator(*redrive, "data.email=c@example.com")
        mended = await restricted.event("mend me", number=3)
        await accounts.ask("shop", "shop", "not theirs", **bad)
        await operator(*redrive, "type=order.create")
        forbidden = await restricted.event("not theirs", number=2)

    assert still_bad.line["user_id"] == listed.line["user_id"] == "shop"
    assert mended.routing_key == "user.created"
    assert forbidden.data["code"] == "forbidden"
    assert "judged as first sent: the account 'shop'" in forbidden.data["detail"]


async def test_nobody_is_somebody_else_by_saying_so(guard: Harness, accounts: Accounts) -> None:
    for number, headers in enumerate(
        ({"x-redrive": True, "x-user-id": "worker_operator"}, {"x-user-id": "worker_operator"})
    ):
        body = {"id": f"forged {number}", "type": "order.delete", "target": {"id": 1}}
        await accounts.publish("shop", body, user_id="shop", headers=headers)
        event = await guard.event(f"forged {number}")
        assert event.data["code"] == "forbidden"
    await accounts.publish("shop", b"{", user_id="shop", headers={"x-user-id": "worker_operator"})
    (letter,) = await guard.dead_letters(1)
    assert letter.headers["x-user-id"] == "shop"


def command_line(harness: Harness, server: PrivateRabbitMQ, account: str) -> CommandLine:
    broker = BrokerSettings.model_validate({"url": broker_url_of(server, account)})
    settings: Settings = harness.settings.model_copy(update={"broker": broker})
    return CommandLine(environment_of(settings))
