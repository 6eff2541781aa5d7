"""What must be true of whatever the codec makes of a message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.support.fakes import make_codec
from worker.codec.validation import MAX_FAULTS
from worker.core.messages import Command, Delivery, Item, Rejected, utc_now

CODEC = make_codec()
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
POINTER = re.compile(r"(/([^/~]|~[01])*)*")  # RFC 6901, section 3
MAX_EVENT_BYTES = 65_536


def strings_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from strings_of(item)


def assert_answerable(item: Item, came: Delivery) -> None:
    assert item.envelope.delivery is came
    assert len(item.envelope.digest) == 32
    assert item.envelope.id is None or 1 <= len(item.envelope.id) <= 200
    assert item.envelope.reply_to not in ("worker.commands", "worker.events")
    if isinstance(item, Command):
        assert item.envelope.key
        return
    assert isinstance(item, Rejected)
    answer = CODEC.problem_answer(item.envelope, "rejected", item.problem, time=utc_now())
    assert len(answer.body) <= MAX_EVENT_BYTES
    event = json.loads(answer.body)
    assert answer.type == event["type"]
    assert event["type"] == f"{item.envelope.type or 'command'}.rejected"
    problem = event["data"]
    assert set(problem) == {"type", "title", "detail", "code", "errors"}
    assert problem["code"] in ("malformed", "unknown_type", "invalid", "too_large")
    assert problem["title"]
    assert problem["detail"]
    assert len(problem["errors"]) <= MAX_FAULTS
    for fault in problem["errors"]:
        assert set(fault) == {"pointer", "code", "detail"}
        assert POINTER.fullmatch(fault["pointer"]), fault["pointer"]
        assert fault["code"]
        assert fault["detail"]
    assert not [string for string in strings_of(event) if CONTROL.search(string)]
