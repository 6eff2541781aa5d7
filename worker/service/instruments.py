"""Everything that `/metrics` shows of a worker; `docs/metrics.md` is written from it."""

from __future__ import annotations

from worker.broker.consumer import consumer, partition_balancer
from worker.broker.publisher import held_answers, publisher, replies
from worker.broker.topology_watch import MISSING, STARVED
from worker.codec.routing_key import MISROUTED
from worker.database import ledger_retention
from worker.database.pool import metrics as pool
from worker.processing import lanes
from worker.telemetry import command_instruments, health, runtime
from worker.telemetry.instruments import Instrument

INSTRUMENTS: tuple[Instrument, ...] = (
    *command_instruments.INSTRUMENTS,
    *lanes.INSTRUMENTS,
    *consumer.INSTRUMENTS,
    *(partition_balancer.ACTIVE, MISROUTED),
    *health.INSTRUMENTS,
    *(publisher.BLOCKED, held_answers.HELD, held_answers.GIVEN_UP, replies.LOST),
    *(MISSING, STARVED),
    *ledger_retention.INSTRUMENTS,
    *pool.INSTRUMENTS,
    *runtime.RUNTIME,
)
