"""What is published for an outcome: the event, its copy to the asker, the dead letter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from worker.broker.topology import Topology
from worker.core.messages import SENDER_HEADER, DeadLetter, Job, Publication, Settled, utc_now

CLOUDEVENT = "application/cloudevents+json"


class Answers:
    """Turns settled jobs into publications, in the order in which they must go out."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology

    def publications(self, settled: Iterable[tuple[Job, Settled]]) -> Iterator[Publication]:
        """Everything that these jobs owe the world."""
        for job, outcome in settled:
            if isinstance(outcome, DeadLetter):
                # First, so that whoever reads the event finds the dead letter in place.
                yield self._dead_letter(job, outcome)
            event = self._event(job, outcome)
            yield event
            if job.envelope.reply_to is not None:
                yield _reply(event, job.envelope.reply_to)

    def _event(self, job: Job, outcome: Settled) -> Publication:
        answer, envelope = outcome.answer, job.envelope
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

    def _dead_letter(self, job: Job, outcome: DeadLetter) -> Publication:
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


def _reply(event: Publication, reply_to: str) -> Publication:
    return Publication(
        exchange="",
        routing_key=reply_to,
        body=event.body,
        content_type=event.content_type,
        type=event.type,
        correlation_id=event.correlation_id,
        headers=event.headers,
        needs_queue=False,
    )


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
