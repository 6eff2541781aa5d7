"""What the log says of commands: a line for each that does not go well, and a line a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from worker.core.messages import Job, Retry, Settled

log = structlog.get_logger(__name__)

SUMMARY_SECONDS = 60.0

_EVENTS = {"done": "done", "refused": "refused", "dead_letter": "dead letter"}


class CommandLog:
    """One line for each command that is refused, tried again or set aside.

    With `tells_done` each that is done has one, too, of level debug.
    """

    def __init__(self, *, tells_done: bool) -> None:
        self.tells_done = tells_done

    def settled(self, job: Job, outcome: Settled, name: str, code: str, seconds: float) -> None:
        """A command has its answer."""
        tell = log.debug if name == "done" else log.info
        tell(
            _EVENTS[name],
            **_of(job),
            outcome=name,
            code=code,
            attempt=getattr(outcome, "attempts", job.failures + 1),
            ms=round(1_000 * seconds),
            detail=getattr(outcome, "detail", None),
            replayed=outcome.answer.replayed,
        )

    def retried(self, job: Job, retry: Retry, seconds: float) -> None:
        """A command is tried again later."""
        log.info(
            "retried",
            **_of(job),
            outcome="retried",
            attempt=max(1, job.failures, job.losses),
            ms=round(1_000 * seconds),
            delay_ms=round(1_000 * retry.delay_seconds),
            reason=retry.reason,
        )


def _of(job: Job) -> dict[str, str | None]:
    envelope = job.envelope
    return {"id": envelope.id, "type": envelope.type, "key": envelope.key}


async def keep_summing_up(count: Callable[[], Mapping[str, int]]) -> None:
    """Say once a minute what has been counted since, if anything was."""
    before = dict(count())
    while True:
        await asyncio.sleep(SUMMARY_SECONDS)
        now = dict(count())
        since = {name: total - before.get(name, 0) for name, total in now.items()}
        if any(since.values()):
            log.info("commands", **since, seconds=SUMMARY_SECONDS)
        before = now
