"""What is published for an outcome: the event, its copy to the asker, the dead letter."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from worker.broker.topology import Topology
from worker.core.messages import (
    SENDER_HEADER,
    DeadLetter,
    Envelope,
    Job,
    Publication,
    ResultEvent,
    Settled,
    utc_now,
)

CLOUDEVENT = "application/cloudevents+json"
EVENT_NOT_PUBLISHED = "event_not_published"


class Publications:
    """Turns settled jobs into publications."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def event(self, job: Job, outcome: Settled) -> Publication:
        """What tells everybody what became of the command."""
        return self._event(job.envelope, outcome.answer)

    def reply(self, envelope: Envelope, answer: ResultEvent) -> Publication:
        """The answer of a query, which its asker alone gets."""
        assert envelope.reply_to is not None
        return reply(self._event(envelope, answer), envelope.reply_to)

    def _event(self, envelope: Envelope, answer: ResultEvent) -> Publication:
        headers: dict[str, Any] = dict(envelope.trace)
        if envelope.id is not None:
            headers["commandid"] = envelope.id
        if answer.replayed:
            headers["x-replayed"] = True
        return Publication(
            exchange=self._topology.events,
            routing_key=answer.type,
            body=answer.body,
            content_type=CLOUDEVENT,
            type=answer.type,
            correlation_id=envelope.correlation_id,
            headers=headers,
        )

    def dead_letter(self, job: Job, outcome: DeadLetter) -> Publication:
        """The command itself, body untouched, with why it is set aside."""
        envelope = job.envelope
        headers: dict[str, Any] = {
            "x-code": outcome.code,
            "x-detail": outcome.detail[:1_000],
            "x-attempts": outcome.attempts,
            "x-first-time": _rfc3339(job.since),
            "x-last-time": _rfc3339(utc_now()),
            "x-event-id": outcome.answer.id,
            # Always set: else the sender could set it.
            SENDER_HEADER: envelope.sender,
        }
        if envelope.id is not None:
            headers["x-command-id"] = envelope.id
        if envelope.type is not None:
            headers["x-command-type"] = envelope.type
        return Publication(
            exchange="",
            routing_key=self._topology.dead_letters,
            body=envelope.delivery.body,
            headers=headers,
            copy_of=envelope.delivery.properties,
        )


def reply(event: Publication, reply_to: str) -> Publication:
    """The event's copy for who asked for it."""
    return Publication(
        exchange="",
        routing_key=reply_to,
        body=event.body,
        content_type=event.content_type,
        type=event.type,
        correlation_id=event.correlation_id,
        headers=event.headers,
    )


def set_aside(job: Job, outcome: Settled, reason: str, attempts: int) -> DeadLetter:
    """What becomes of a command that was answered, where the broker does not take its event."""
    answer = outcome.answer
    mend = (
        "the ledger holds the event, and sends it when this letter is redriven"
        if job.envelope.id is not None
        else "it has no id and so no entry in the ledger: to redrive it carries it out again"
    )
    detail = (
        f"the command was carried out, but RabbitMQ does not take its event {answer.type}: "
        f"{reason}. Once it would, {mend}"
    )
    return DeadLetter(answer, EVENT_NOT_PUBLISHED, detail, attempts)


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
