"""JSON that can be read, with a string that cannot be stored: `invalid`, under its own id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.fuzz.answerable import CODEC, assert_answerable
from tests.support.fakes import ANN, delivery
from worker.codec.validation import MAX_FAULTS
from worker.core.messages import Command, Problem, Rejected

COMMANDS: list[dict[str, Any]] = [
    {"id": "c", "type": "user.create", "data": {**ANN, "rating": 1}, "key": "k"},
    {"id": "c", "type": "user.update", "target": {"username": "ann"}, "data": {"email": "e@x.org"}},
    {"id": "c", "type": "order.create", "data": {"user": {"email": "e@x.org"}}, "subject": "s"},
    {"id": "c", "type": "user.delete", "target": {"id": 1}, "specversion": "1.0", "tenant": "eu"},
]
Path = tuple[str, ...]


def places(value: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, bool]]:
    """Every string within: where it stands, and whether it is the name of a member."""
    for name, inner in value.items():
        yield (*path, name), True
        if isinstance(inner, str):
            yield (*path, name), False
        if isinstance(inner, dict):
            yield from places(inner, (*path, name))


def spoilt(value: dict[str, Any], path: Path, is_name: bool, text: str) -> dict[str, Any]:
    """The document with this text at the end of one of its strings."""
    name, *rest = path
    if rest:
        return {**value, name: spoilt(value[name], tuple(rest), is_name, text)}
    if is_name:
        return {(name + text if it == name else it): inner for it, inner in value.items()}
    return {**value, name: value[name] + text}


def problem_of(body: Any, **properties: Any) -> Problem:
    came = delivery(body, **properties)
    item = CODEC.decode(came)
    assert_answerable(item, came)
    assert isinstance(item, Rejected)
    return item.problem


CASES = [(command, *place) for command in COMMANDS for place in places(command)]


@pytest.mark.parametrize("code", [0, 0xD800, 0xDBFF, 0xDC00, 0xDFFF], ids=hex)
@pytest.mark.parametrize(("command", "path", "is_name"), CASES)
def test_each_string_is_pointed_at(
    command: dict[str, Any], path: Path, is_name: bool, code: int
) -> None:
    body = spoilt(command, path, is_name, chr(code))
    came = delivery(body, message_id="of-the-property", type=command["type"])
    item = CODEC.decode(came)

    assert_answerable(item, came)
    assert isinstance(item, Rejected)
    assert item.problem.code == "invalid"
    shown = "/" + "/".join(path) + ("?" if is_name else "")
    faults = {(fault.pointer, fault.code) for fault in item.problem.errors}
    assert (shown, "unstorable") in faults
    assert len(faults) == len(item.problem.errors)
    if path == ("id",):
        assert item.envelope.id == ("of-the-property" if is_name else None)
    else:
        assert item.envelope.id == "c"
    if path != ("type",):
        assert item.envelope.type == command["type"]


def test_only_the_first_of_very_many_are_told() -> None:
    problem = problem_of({**COMMANDS[0], "subject": ["\x00"] * 10_000})

    assert [fault.pointer for fault in problem.errors] == [f"/subject/{n}" for n in range(20)]
    assert len(problem.errors) == MAX_FAULTS
    assert "(and 9999 more)" in problem.detail


def test_what_else_is_wrong_with_the_envelope_is_told_too() -> None:
    problem = problem_of({"id": "c", "type": "user.paint", "data": {"a": "\x00"}, "colour": 1})

    assert problem.code == "invalid"
    assert [fault.pointer for fault in problem.errors] == ["/data/a", "/colour", "/type"]


def test_what_is_no_object_is_malformed_whatever_it_holds() -> None:
    assert problem_of(b'["\\u0000"]').code == "malformed"
    assert problem_of(b'{"id":"c","a":"\\ud800","a":1}').code == "malformed"


@given(st.text(st.characters(), max_size=20))
def test_all_other_text_can_be_stored(text: str) -> None:
    """Pairs of surrogates and escapes of escapes among it."""
    for shown in (text, json.dumps(text)[1:-1]):
        item = CODEC.decode(delivery({**COMMANDS[2], "subject": shown}))
        can_be = "\x00" not in shown and not any("\ud800" <= it <= "\udfff" for it in shown)
        assert isinstance(item, Command) is can_be
