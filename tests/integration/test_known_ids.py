"""What comes under the id of a command that has its answer already, and is another one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.harness import Harness

ANN = {"username": "ann", "email": "ann@example.com"}
FIRST: dict[str, dict[str, Any]] = {
    "user.created": {"type_": "user.create", "data": ANN},
    "user.update.rejected": {"type_": "user.update", "target": {"id": 1}, "data": {"rating": 1}},
    "user.delete.rejected": {"type_": "user.delete", "target": {"id": "x"}},
}
"""By the event that it ends with: done, refused, set aside."""
UNUSABLE: dict[str, tuple[bytes, str, str]] = {
    "cut off": (b'{"id": "known", "type": "user.cre', "malformed", "command.rejected"),
    "empty": (b"", "malformed", "command.rejected"),
    "too large": (b" " * 1_048_577, "too_large", "command.rejected"),
    "of no known type": (b'{"type": "user.paint"}', "unknown_type", "command.rejected"),
    "not valid": (b'{"type": "user.create", "data": {}}', "invalid", "user.create.rejected"),
    "not storable": (
        b'{"type": "user.create", "key": "\\u0000"}',
        "invalid",
        "user.create.rejected",
    ),
}


@pytest.mark.parametrize("how", FIRST)
async def test_what_cannot_be_used_is_set_aside_and_not_lost(harness: Harness, how: str) -> None:
    async with harness.worker():
        first = await harness.ask(**FIRST[how], id="known")
        assert first.routing_key == how
        owed = len(await harness.dead_letters_so_far())
        assert owed == (how == "user.delete.rejected")
        for number, (body, code, type_) in enumerate(UNUSABLE.values(), start=2):
            await harness.publish_plainly(body, message_id="known")
            event = await harness.event("known", number=number)
            (letter,) = await harness.dead_letters(1)

            assert (event.routing_key, event.data["code"]) == (type_, code)
            assert letter.body == body
            assert letter.headers["x-code"] == code
            assert letter.headers["x-command-id"] == "known"
            assert letter.headers["x-event-id"] == event.json["id"]
        if how == "user.delete.rejected":
            return  # had no effect, so the last word under its id is that of the last attempt
        await harness.send(**FIRST[how], id="known")
        again = await harness.event("known", number=2 + len(UNUSABLE))
        assert again.body == first.body
        assert "x-replayed" in again.headers


async def test_another_usable_command_is_refused_and_acknowledged(harness: Harness) -> None:
    async with harness.worker():
        await harness.ask(**FIRST["user.created"], id="known")
        await harness.send("user.delete", target={"username": "ann"}, id="known")
        refused = await harness.event("known", number=2)

        assert refused.data["code"] == "id_reused"
        assert await harness.dead_letters_so_far() == []
        assert await harness.waiting() == 0
    (user,) = await harness.rows("SELECT username FROM users")
    assert user == {"username": "ann"}
    assert json.loads(refused.body)["commandid"] == "known"
