"""Every outcome of the contract, grouped and one by one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from tests.support.harness import Harness, eventually


@pytest.fixture(params=[64, pytest.param(1, marks=pytest.mark.long)], ids=["grouped", "one-by-one"])
async def worker(request: pytest.FixtureRequest, harness: Harness) -> AsyncIterator[Harness]:
    async with harness.worker(group_size=request.param):
        yield harness


async def test_a_created_user_is_a_row_and_an_event(worker: Harness) -> None:
    event = await worker.ask(
        "user.create", data={"username": "ann", "email": "Ann@Example.com", "rating": 4}
    )

    (row,) = await worker.rows("SELECT * FROM users")
    assert event.routing_key == "user.created"
    assert event.json["subject"] == f"user/{row['id']}"
    assert event.data["email"] == row["email"] == "Ann@Example.com"
    assert event.data["rating"] == row["rating"] == 4.0
    assert event.data["version"] == row["version"] == 1
    assert event.data["created_on"].endswith("Z")


ANN = {"username": "ann", "email": "ann@example.com"}


async def test_an_update_changes_only_what_is_given_and_counts_the_version(worker: Harness) -> None:
    await worker.ask("user.create", data=ANN | {"rating": 2})
    event = await worker.ask("user.update", target={"username": "ann"}, data={"rating": None})

    assert event.routing_key == "user.updated"
    assert event.data["rating"] is None
    assert event.data["email"] == "ann@example.com"
    assert event.data["version"] == 2
    (row,) = await worker.rows("SELECT * FROM users")
    assert (row["rating"], row["version"]) == (None, 2)
    assert row["updated_on"] > row["created_on"]


@pytest.mark.parametrize("key", ["id", "username", "email"])
async def test_a_row_is_found_by_each_unique_key(worker: Harness, key: str) -> None:
    created = await worker.ask("user.create", data=ANN)
    value = "ANN@example.COM" if key == "email" else created.data[key]
    event = await worker.ask("user.delete", target={key: value})

    assert event.routing_key == "user.deleted"
    assert event.data == created.data
    assert await worker.rows("SELECT * FROM users") == []


async def test_an_order_names_its_user_by_id_or_by_key(worker: Harness) -> None:
    user = await worker.ask("user.create", data=ANN)
    first = await worker.ask("order.create", data={"user_id": user.data["id"]})
    second = await worker.ask(
        "order.create", data={"user": {"email": "ANN@example.com"}, "is_completed": True}
    )

    assert first.data["user_id"] == second.data["user_id"] == user.data["id"]
    assert (first.data["is_completed"], second.data["is_completed"]) == (False, True)
    assert first.json["subject"] == f"order/{first.data['id']}"


async def test_an_order_of_nobody_is_refused(worker: Harness) -> None:
    by_id = await worker.ask("order.create", data={"user_id": 77})
    by_key = await worker.ask("order.create", data={"user": {"username": "nobody"}})

    for event, pointer in ((by_id, "/data/user_id"), (by_key, "/data/user")):
        assert event.routing_key == "order.create.rejected"
        assert event.data["code"] == "not_found"
        assert event.data["errors"][0]["pointer"] == pointer


async def test_a_user_with_orders_stays(worker: Harness) -> None:
    user = await worker.ask("user.create", data=ANN)
    for _ in range(2):
        order = await worker.ask("order.create", data={"user_id": user.data["id"]})
    refused = await worker.ask("user.delete", target={"username": "ann"})

    assert refused.routing_key == "user.delete.rejected"
    assert refused.data["code"] == "conflict"
    assert "2 orders" in refused.data["detail"]
    assert len(await worker.rows("SELECT * FROM users")) == 1

    for row in await worker.rows("SELECT id FROM orders"):
        order = await worker.ask("order.delete", target={"id": row["id"]})
        assert order.routing_key == "order.deleted"
    done = await worker.ask("user.delete", target={"username": "ann"})
    assert done.routing_key == "user.deleted"


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ({"username": "ann", "email": "other@example.com"}, "/data/username"),
        ({"username": "other", "email": "ANN@Example.com"}, "/data/email"),
    ],
)
async def test_a_taken_name_or_address_is_a_conflict(
    worker: Harness, data: dict[str, str], pointer: str
) -> None:
    await worker.ask("user.create", data=ANN)
    refused = await worker.ask("user.create", data=data)

    assert refused.routing_key == "user.create.rejected"
    assert refused.data["code"] == "conflict"
    assert refused.data["errors"][0]["pointer"] == pointer
    assert len(await worker.rows("SELECT * FROM users")) == 1


async def test_a_rename_onto_a_taken_name_is_a_conflict(worker: Harness) -> None:
    await worker.ask("user.create", data=ANN)
    await worker.ask("user.create", data={"username": "bob", "email": "bob@example.com"})
    refused = await worker.ask("user.update", target={"username": "bob"}, data={"username": "ann"})
    same = await worker.ask("user.update", target={"username": "bob"}, data={"username": "bob"})

    assert refused.data["code"] == "conflict"
    assert same.routing_key == "user.updated"


async def test_a_name_that_was_given_up_can_be_taken(worker: Harness) -> None:
    # One key for all, so that they run in one lane, in one group where groups are on.
    ids = [
        await worker.send("user.create", data=ANN, key="k"),
        await worker.send(
            "user.update", target={"username": "ann"}, data={"username": "eve"}, key="k"
        ),
        await worker.send("user.create", data=ANN | {"email": "ann2@example.com"}, key="k"),
        await worker.send("user.delete", target={"username": "ann"}, key="k"),
        await worker.send("user.create", data=ANN | {"email": "ann3@example.com"}, key="k"),
    ]
    events = [await worker.event(id_) for id_ in ids]

    assert [event.routing_key for event in events] == [
        "user.created",
        "user.updated",
        "user.created",
        "user.deleted",
        "user.created",
    ]
    rows = await worker.rows("SELECT username, email FROM users ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [
        ("eve", "ann@example.com"),
        ("ann", "ann3@example.com"),
    ]


async def test_each_event_shows_the_row_as_it_was_then(worker: Harness) -> None:
    ids = [await worker.send("user.create", data=ANN, key="k")]
    ids += [
        await worker.send(
            "user.update", target={"username": "ann"}, data={"rating": rating}, key="k"
        )
        for rating in (1, 2, 3)
    ]
    ids.append(await worker.send("user.delete", target={"username": "ann"}, key="k"))
    events = [await worker.event(id_) for id_ in ids]

    assert [event.data["version"] for event in events] == [1, 2, 3, 4, 4]
    assert [event.data["rating"] for event in events] == [None, 1.0, 2.0, 3.0, 3.0]


async def test_an_expected_version_guards_an_update_and_a_delete(worker: Harness) -> None:
    await worker.ask("user.create", data=ANN)
    target = {"username": "ann"}
    stale = await worker.ask("user.update", target=target, data={"rating": 1}, expected_version=2)
    fresh = await worker.ask("user.update", target=target, data={"rating": 1}, expected_version=1)
    late = await worker.ask("user.delete", target=target, expected_version=1)
    done = await worker.ask("user.delete", target=target, expected_version=2)

    assert stale.data["code"] == late.data["code"] == "version_mismatch"
    assert stale.routing_key == "user.update.rejected"
    assert "version 1" in stale.data["detail"]
    assert fresh.routing_key == "user.updated"
    assert done.routing_key == "user.deleted"


async def test_what_is_not_there_cannot_be_changed(worker: Harness) -> None:
    update = await worker.ask("user.update", target={"id": 99}, data={"rating": 1})
    delete = await worker.ask("order.delete", target={"id": 2**63 - 1})

    assert update.routing_key == "user.update.rejected"
    assert update.data["code"] == delete.data["code"] == "not_found"
    assert update.data["errors"][0]["pointer"] == "/target"


async def test_a_duplicate_gets_the_very_same_event(worker: Harness) -> None:
    first = await worker.ask("user.create", data=ANN)
    id_ = first.command_id
    assert id_ is not None
    await worker.send("user.create", data=ANN, id=id_)
    second = await worker.event(id_, number=2)

    assert second.body == first.body
    assert second.headers["x-replayed"] is True
    assert "x-replayed" not in first.headers
    assert second.properties.message_id != first.properties.message_id
    assert len(await worker.rows("SELECT * FROM users")) == 1


async def test_a_refusal_is_remembered_too(worker: Harness) -> None:
    refused = await worker.ask("user.update", target={"username": "ann"}, data={"rating": 1})
    await worker.ask("user.create", data=ANN)
    id_ = refused.command_id
    assert id_ is not None
    await worker.send("user.update", target={"username": "ann"}, data={"rating": 1}, id=id_)
    again = await worker.event(id_, number=2)

    assert again.body == refused.body
    (row,) = await worker.rows("SELECT rating FROM users")
    assert row["rating"] is None


async def test_duplicates_at_once_have_one_effect(worker: Harness) -> None:
    ids = [await worker.send("user.create", data=ANN, id="same") for _ in range(20)]
    last = await worker.event(ids[0], number=20)

    assert {event.body for event in worker.events} == {last.body}
    assert sum("x-replayed" not in event.headers for event in worker.events) == 1
    assert len(await worker.rows("SELECT * FROM users")) == 1


async def test_the_same_id_with_another_body_is_refused(worker: Harness) -> None:
    first = await worker.ask("user.create", data=ANN)
    id_ = first.command_id
    assert id_ is not None
    await worker.send("user.create", data=ANN | {"username": "eve"}, id=id_)
    refused = await worker.event(id_, number=2)

    assert refused.routing_key == "user.create.rejected"
    assert refused.data["code"] == "id_reused"
    assert len(await worker.rows("SELECT * FROM users")) == 1


async def test_spacing_order_and_time_do_not_make_another_command(worker: Harness) -> None:
    await worker.publish('{"id":"x","type":"user.create","data":{"username":"a","email":"a@b.de"}}')
    await worker.publish(
        '{"time": "2026-01-01T00:00:00Z", "data": {"email": "a@b.de", "username": "a"},'
        ' "type": "user.create", "id": "x"}'
    )
    first, second = await worker.event("x"), await worker.event("x", number=2)

    assert first.body == second.body


async def test_a_command_without_id_is_handled(worker: Harness) -> None:
    before = len(worker.events)
    await worker.publish_plainly(json.dumps({"type": "user.create", "data": ANN}).encode())
    event = await worker.next_event(after=before)

    assert event.routing_key == "user.created"
    assert "commandid" not in event.json
    assert await worker.rows("SELECT * FROM command_ledger") == []


async def test_id_type_and_correlation_may_stand_in_the_properties(worker: Harness) -> None:
    await worker.publish(
        {"data": ANN}, message_id="from-property", type="user.create", correlation_id="chain-7"
    )
    event = await worker.event("from-property")

    assert event.routing_key == event.properties.type == "user.created"
    assert event.properties.correlation_id == event.json["correlationid"] == "chain-7"


async def test_an_event_is_a_cloudevent(worker: Harness) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await worker.publish(
        {"id": "c1", "type": "user.create", "data": ANN}, headers={"traceparent": parent}
    )
    event = await worker.event("c1")

    assert event.json["specversion"] == "1.0"
    assert event.json["source"] == "/worker"
    assert event.json["type"] == event.routing_key
    assert event.json["datacontenttype"] == "application/json"
    assert event.json["correlationid"] == event.properties.correlation_id == "c1"
    assert event.properties.content_type == "application/cloudevents+json"
    assert event.properties.delivery_mode == 2
    assert event.properties.timestamp is not None
    assert event.headers == {"commandid": "c1", "traceparent": parent}


async def test_a_structured_cloudevent_is_a_command(worker: Harness) -> None:
    event = await worker.ask(
        "user.create",
        data=ANN,
        specversion="1.0",
        source="/shop",
        subject="ann",
        time="2026-11-22T13:09:00Z",
        datacontenttype="application/json",
        tenant="eu",
    )

    assert event.routing_key == "user.created"


async def test_the_asker_gets_a_copy(worker: Harness) -> None:
    queue = await worker.channel.declare_queue(exclusive=True)
    await worker.publish(
        {"id": "r1", "type": "user.create", "data": ANN},
        reply_to=queue.name,
        correlation_id="call-1",
    )
    event = await worker.event("r1")
    reply = await eventually(lambda: queue.get(fail=False))

    assert reply.body == event.body
    assert reply.correlation_id == "call-1"


async def test_an_asker_that_has_gone_harms_nobody(worker: Harness) -> None:
    await worker.publish({"id": "r2", "type": "user.create", "data": ANN}, reply_to="gone")

    assert (await worker.event("r2")).routing_key == "user.created"
    assert (await worker.ask("user.delete", target={"username": "ann"})).command_id


async def test_an_unusable_command_is_answered_and_set_aside_untouched(worker: Harness) -> None:
    body = b'{"id": "bad-1", "type": "user.create", "data": {"username": "", "email": "nope"}}'
    await worker.publish(
        body, correlation_id="c", expiration=60, headers={"tenant": "eu", "CC": []}
    )
    event = await worker.event("bad-1")
    (letter,) = await worker.dead_letters(1)

    assert event.routing_key == "user.create.rejected"
    assert event.data["code"] == "invalid"
    assert {fault["pointer"] for fault in event.data["errors"]} == {
        "/data/username",
        "/data/email",
    }
    assert letter.body == body
    assert letter.headers["x-code"] == "invalid"
    assert letter.headers["x-event-id"] == event.json["id"]
    assert letter.headers["x-attempts"] == 1
    assert letter.headers["x-first-time"] <= letter.headers["x-last-time"]
    assert letter.headers["tenant"] == "eu"
    assert letter.properties.correlation_id == "c"
    assert letter.properties.expiration is None


@pytest.mark.parametrize(
    ("body", "code", "type_"),
    [
        (b"", "malformed", "command.rejected"),
        (b"\xff", "malformed", "command.rejected"),
        (b"[1]", "malformed", "command.rejected"),
        (b'{"id": "x", "type": "user.paint"}', "unknown_type", "command.rejected"),
        (b'{"id": "x"}', "unknown_type", "command.rejected"),
        (b'{"id": "x", "type": "user.create"}', "invalid", "user.create.rejected"),
        (b" " * 1_048_577, "too_large", "command.rejected"),
    ],
    ids=["empty", "not-utf8", "list", "unknown-verb", "no-type", "no-data", "too-large"],
)
async def test_every_unusable_body_gets_one_event_and_one_dead_letter(
    worker: Harness, body: bytes, code: str, type_: str
) -> None:
    before = len(worker.events)
    await worker.publish(body)
    event = await worker.next_event(after=before)
    (letter,) = await worker.dead_letters(1)

    assert (event.data["code"], event.routing_key) == (code, type_)
    assert letter.body == body
    assert letter.headers["x-code"] == code


async def test_a_dead_lettered_id_can_be_used_once_the_command_is_mended(worker: Harness) -> None:
    await worker.ask("user.create", id="m1", data={"username": "ann"})
    await worker.send("user.create", id="m1", data=ANN)
    event = await worker.event("m1", number=2)

    assert event.routing_key == "user.created"
    (entry,) = await worker.rows("SELECT outcome FROM command_ledger")
    assert entry["outcome"] == "done"


async def test_an_invalid_command_that_two_workers_have_at_once_has_one_answer(
    worker: Harness,
) -> None:
    """The other worker is a transaction of ours, which commits while this one waits for it."""
    first = await worker.ask("user.create", id="twice", data={"username": "ann"})
    async with worker.pool.acquire() as other, other.transaction():
        row = await other.fetchrow("DELETE FROM command_ledger RETURNING *")
    async with worker.pool.acquire() as other, other.transaction():
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await other.execute(f"INSERT INTO command_ledger VALUES ({places})", *row.values())
        await worker.send("user.create", id="twice", data={"username": "ann"})
        await eventually(lambda: _somebody_waits(worker))
    again = await worker.event("twice", number=2)
    assert again.body == first.body
    assert again.headers["x-replayed"] is True


async def _somebody_waits(harness: Harness) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
    (database,) = await harness.rows("SELECT current_database() AS name")
    return bool(await harness.rows(query, database["name"]))


async def test_the_ledger_keeps_what_was_published(worker: Harness) -> None:
    event = await worker.ask("user.create", data=ANN)
    (entry,) = await worker.rows("SELECT * FROM command_ledger")

    assert entry["command_id"] == event.command_id
    assert entry["event_body"].encode() == event.body
    assert str(entry["event_id"]) == event.json["id"]
    assert entry["event_type"] == event.routing_key
    assert entry["outcome"] == "done"
