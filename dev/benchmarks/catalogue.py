"""All contenders, and how each is started."""

from __future__ import annotations

import sys
from pathlib import Path

from dev.benchmarks.commands import CHANGE
from dev.benchmarks.contender import Contender, Queue

PROJECT = Path(sys.executable).parent
"""The programs of the project's virtual environment, which this runs in."""
PEERS = PROJECT.parents[1] / ".venv-bench" / "bin"

_SLOW = 0.125
"""The part of the commands that a slow one gets."""


def _argv(programs: Path, line: str) -> tuple[str, ...]:
    program, *arguments = line.replace("@", "dev.benchmarks.contenders.").split()
    return (str(programs / program), *arguments)


_FASTSTREAM = "faststream run @faststream_app:app --log-level warning"
_TASKIQ = (
    "taskiq worker @taskiq_app:broker --log-level WARNING --ack-type when_executed "
    "--max-async-tasks 100"
)
_CELERY = (
    "celery --app @celery_app worker --pool prefork --concurrency 2 --loglevel WARNING "
    "--without-gossip --without-mingle --without-heartbeat"
)
_DRAMATIQ = "dramatiq @dramatiq_app --processes 2 --threads 4"

_WORKERS = (
    Contender(
        name="worker",
        label="worker",
        argv=_argv(PROJECT, "worker run"),
        queue=Queue.WORKER,
    ),
    Contender(
        name="worker-2",
        label="worker, 2 processes",
        argv=_argv(PROJECT, "worker run --processes 2"),
        queue=Queue.WORKER,
        processes=2,
    ),
    Contender(
        name="worker-single",
        label="worker, a transaction per command",
        argv=_argv(PROJECT, "worker run"),
        queue=Queue.WORKER,
        environment={"WORKER_GROUP_SIZE": "1"},
        share=_SLOW,
    ),
    Contender(
        name="worker-change",
        label="worker, updates and deletes",
        argv=_argv(PROJECT, "worker run"),
        queue=Queue.WORKER,
        workload=CHANGE,
    ),
)

_PEERS = (
    Contender(
        name="faststream",
        label="FastStream + SQLAlchemy",
        argv=_argv(PEERS, f"{_FASTSTREAM} --workers 1"),
        share=_SLOW,
    ),
    Contender(
        name="faststream-quorum",
        label="FastStream + SQLAlchemy, on a quorum queue",
        argv=_argv(PEERS, f"{_FASTSTREAM} --workers 1"),
        queue=Queue.QUORUM,
        environment={"BENCH_QUEUE_TYPE": "quorum"},
        by_name=True,
        share=_SLOW,
    ),
    Contender(
        name="faststream-2",
        label="FastStream + SQLAlchemy, 2 processes",
        argv=_argv(PEERS, f"{_FASTSTREAM} --workers 2"),
        share=_SLOW,
        processes=2,
    ),
    Contender(
        name="plain",
        label="aio-pika + SQLAlchemy",
        argv=_argv(PROJECT, "python -m @plain"),
        share=_SLOW,
    ),
    Contender(
        name="taskiq",
        label="taskiq + SQLAlchemy",
        argv=_argv(PEERS, f"{_TASKIQ} --workers 1"),
        queue=Queue.OWN,
        fill=_argv(PEERS, "python -m @taskiq_app"),
        leftovers=(".dead",),
        share=_SLOW,
    ),
    Contender(
        name="taskiq-2",
        label="taskiq + SQLAlchemy, 2 processes",
        argv=_argv(PEERS, f"{_TASKIQ} --workers 2"),
        queue=Queue.OWN,
        fill=_argv(PEERS, "python -m @taskiq_app"),
        leftovers=(".dead",),
        share=_SLOW,
        processes=2,
    ),
    Contender(
        name="celery",
        label="Celery + SQLAlchemy, 2 processes",
        argv=_argv(PEERS, _CELERY),
        queue=Queue.OWN,
        fill=_argv(PEERS, "python -m @celery_app"),
        share=_SLOW,
        processes=2,
    ),
    Contender(
        name="dramatiq",
        label="Dramatiq + SQLAlchemy, 2 processes",
        argv=_argv(PEERS, _DRAMATIQ),
        queue=Queue.OWN,
        fill=_argv(PEERS, "python -m @dramatiq_app"),
        leftovers=(".DQ", ".XQ"),
        share=_SLOW,
        processes=2,
    ),
)

_YARDSTICKS = (
    Contender(
        name="nothing",
        label="aio-pika handler that only publishes an event",
        argv=_argv(PROJECT, "python -m @nothing"),
        writes=False,
        yardstick=True,
    ),
    Contender(
        name="pgbench",
        label="pgbench, the same rows, 20 clients",
        argv=("pgbench",),
        queue=Queue.NONE,
        yardstick=True,
    ),
)

CONTENDERS = {contender.name: contender for contender in (*_WORKERS, *_PEERS, *_YARDSTICKS)}
