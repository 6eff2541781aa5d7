"""Rules of an entity's own that fail themselves: their command is answered, nothing is raised."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import field_validator, model_validator

from tests.support.fakes import delivery
from worker.codec.codec import Codec
from worker.core.messages import DeadLetter, Rejected
from worker.core.payloads import Key, Payload, omitted
from worker.core.registry import Registry, Verb
from worker.entities.user import USER
from worker.processing.outcomes import Outcomes

RAISED: list[BaseException] = [
    KeyError("missing"),
    RuntimeError("a bug"),
    RecursionError(),
    StopIteration(),
    StopAsyncIteration(),
    GeneratorExit(),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    BaseExceptionGroup("several", [SystemExit(), ValueError()]),
    type("Own", (BaseException,), {"__str__": lambda _: 1 / 0})(),
]
BODY = {"id": "c", "type": "user.check", "target": {"id": 1}, "data": {"text": "x"}, "key": "k"}


def codec_raising(error: BaseException, where: str) -> Codec:
    def fail(value: Any) -> Any:
        raise error

    rule: Any = classmethod(lambda _, value: fail(value))

    class Text(Payload):
        text: str
        if where == "field":
            _text = field_validator("text")(fail)
        if where == "model":
            _model = model_validator(mode="before")(rule)

    class Target(Key):
        if where == "target":
            _model = model_validator(mode="before")(rule)
        username: str = omitted()

    verbs = {"check": Verb(USER.verbs["delete"].handle, Text)}
    return Codec(Registry([replace(USER, target=Target, verbs=verbs)]))


@pytest.mark.parametrize("where", ["field", "model", "target"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_validator_that_fails_sets_its_command_aside(error: BaseException, where: str) -> None:
    codec = codec_raising(error, where)
    item = codec.decode(delivery(json.dumps(BODY)))

    assert isinstance(item, Rejected)
    assert (item.envelope.id, item.envelope.type, item.envelope.key) == ("c", "user.check", "k")
    outcome = Outcomes(Registry([USER]), codec).unusable(item)
    assert isinstance(outcome, DeadLetter)
    assert (outcome.code, outcome.answer.type) == ("failed", "user.check.failed")
    assert b"missing" not in outcome.answer.body


def test_a_natural_key_that_cannot_be_read_sets_its_command_aside() -> None:
    class Odd(Payload):
        @property
        def username(self) -> str:
            raise ZeroDivisionError

    verbs = {"check": Verb(USER.verbs["create"].handle, Odd, targeted=False)}
    codec = Codec(Registry([replace(USER, verbs=verbs)]))
    item = codec.decode(delivery(json.dumps({"id": "c", "type": "user.check", "data": {}})))

    assert isinstance(item, Rejected)
    assert (item.envelope.id, item.problem.code) == ("c", "failed")
