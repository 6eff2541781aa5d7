"""The shape of what goes out: CloudEvents 1.0, copies to askers, dead letters."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from tests.support.fakes import ANN, delivery, make_codec
from worker.broker.publisher.publications import CLOUDEVENT, Publications, reply
from worker.broker.topology import Topology
from worker.codec.codec import Codec
from worker.core.errors import Conflict, IdReused, NotFound, Refusal, VersionMismatch
from worker.core.messages import (
    DeadLetter,
    Done,
    Job,
    Refused,
    ResultEvent,
    Settled,
    new_id,
    utc_now,
)
from worker.processing.outcomes import problem_of
from worker.settings.settings import BrokerSettings

TOPOLOGY = Topology("worker", BrokerSettings())
CODEC = make_codec()
ROW = {"id": 42, "username": "ann", "rating": None, "created_on": utc_now()}


def job(**properties: Any) -> Job:
    return Job(
        CODEC.decode(delivery({"id": "c1", "type": "user.create", "data": ANN}, **properties))
    )


def answer_to(asked: Job) -> ResultEvent:
    return CODEC.answer(asked.envelope, "user.created", ROW, subject="user/42", time=utc_now())


def publications(asked: Job, outcome: Settled) -> list[Any]:
    answers = Publications(TOPOLOGY)
    letters = [answers.dead_letter(asked, outcome)] if isinstance(outcome, DeadLetter) else []
    event, to = answers.event(asked, outcome), asked.envelope.reply_to
    return [*letters, event, *([] if to is None else [reply(event, to)])]


def test_an_event_has_what_cloudevents_require() -> None:
    asked = job(correlation_id="chain")
    answer = answer_to(asked)
    event = json.loads(answer.body)

    assert event["specversion"] == "1.0"
    assert event["id"] == answer.id
    assert UUID(event["id"]).version == 7
    assert event["source"] == "/worker"
    assert event["type"] == answer.type == "user.created"
    assert event["subject"] == "user/42"
    assert event["time"].endswith("Z")
    assert datetime.fromisoformat(event["time"]).tzinfo is not None
    assert event["datacontenttype"] == "application/json"
    assert (event["commandid"], event["correlationid"]) == ("c1", "chain")
    assert event["data"]["id"] == 42
    assert event["data"]["rating"] is None
    assert event["data"]["created_on"].endswith("Z")


def test_attribute_names_are_lower_case_letters_and_digits() -> None:
    event = json.loads(answer_to(job()).body)

    assert all(name.isalnum() and name.islower() and len(name) <= 20 for name in event)


def test_a_command_without_id_leaves_its_attributes_out() -> None:
    asked = Job(CODEC.decode(delivery({"type": "user.create", "data": ANN})))
    event = json.loads(answer_to(asked).body)

    assert "commandid" not in event
    assert "correlationid" not in event


@pytest.mark.parametrize("refusal", [NotFound, Conflict, VersionMismatch, IdReused])
def test_a_refusal_becomes_a_problem(codec: Codec, refusal: type[Refusal]) -> None:
    problem = problem_of(refusal("that is so", pointer="/target"))
    answer = codec.problem_answer(job().envelope, "rejected", problem, time=utc_now())
    data = json.loads(answer.body)["data"]

    assert answer.type == "user.create.rejected"
    assert data["type"] == f"urn:worker:problem:{refusal.code}"
    assert data["title"]
    assert (data["code"], data["detail"]) == (refusal.code, "that is so")
    assert data["errors"] == [{"pointer": "/target", "code": refusal.code, "detail": "that is so"}]


def test_identities_are_in_the_order_of_time() -> None:
    ids = [new_id() for _ in range(200)]

    assert len(set(ids)) == len(ids)
    stamps = [id_[:13] for id_ in ids]
    assert stamps == sorted(stamps)
    assert {UUID(id_).variant for id_ in ids} == {UUID(int=0x8 << 60).variant}


def test_an_event_is_published_as_its_type_says() -> None:
    asked = job(correlation_id="chain")
    answer = answer_to(asked)
    (event,) = publications(asked, Done(answer))

    assert (event.exchange, event.routing_key, event.type) == (
        "worker.events",
        "user.created",
        "user.created",
    )
    assert event.body is answer.body
    assert event.content_type == CLOUDEVENT
    assert event.correlation_id == "chain"
    assert event.headers == {"commandid": "c1"}
    assert event.copy_of is None


def test_a_replayed_event_says_so_in_its_headers_alone() -> None:
    asked = job()
    answer = answer_to(asked)
    again = ResultEvent(answer.id, answer.type, answer.body, replayed=True)
    (event,) = publications(asked, Refused(again))

    assert event.body is answer.body
    assert event.headers == {"commandid": "c1", "x-replayed": True}


def test_the_asker_gets_a_copy() -> None:
    asked = job(reply_to="asker", correlation_id="call-1")
    event, copy = publications(asked, Done(answer_to(asked)))

    assert (copy.exchange, copy.routing_key) == ("", "asker")
    assert copy.body is event.body
    assert (copy.type, copy.correlation_id) == (event.type, "call-1")


def test_a_dead_letter_says_why() -> None:
    properties = object()
    asked = job(properties=properties, reply_to="asker")
    answer = answer_to(asked)
    letter, event, _ = publications(asked, DeadLetter(answer, "failed", "d" * 5_000, attempts=5))

    assert (letter.exchange, letter.routing_key) == ("", "worker.dead-letters")
    assert letter.body is asked.envelope.delivery.body
    assert letter.copy_of is properties
    assert event.routing_key == "user.created"
    headers = letter.headers
    assert headers["x-code"] == "failed"
    assert headers["x-attempts"] == 5
    assert headers["x-event-id"] == answer.id
    assert headers["x-command-id"] == "c1"
    assert headers["x-command-type"] == "user.create"
    assert len(headers["x-detail"]) == 1_000
    first, last = (datetime.fromisoformat(headers[f"x-{name}-time"]) for name in ("first", "last"))
    assert first <= last
