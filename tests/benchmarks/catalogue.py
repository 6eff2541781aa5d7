"""All contenders, and how each is started."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks.commands import CHANGE
from tests.benchmarks.contender import Contender, Queue

PROGRAMS = Path(sys.executable).parent
"""The project's virtual environment, which this runs in."""

_WORKER = (str(PROGRAMS / "worker"), "run")
_MODULE = "tests.benchmarks.contenders"
_PYTHON = (str(PROGRAMS / "python"), "-m")

_ALL = (
    Contender(name="worker", label="worker", argv=_WORKER, queue=Queue.WORKER),
    Contender(
        name="worker-alone",
        label="worker, one command a transaction",
        argv=_WORKER,
        queue=Queue.WORKER,
        environment={"WORKER_GROUP_SIZE": "1"},
        share=0.3,
    ),
    Contender(
        name="worker-2",
        label="worker, 2 processes",
        argv=(*_WORKER, "--processes", "2"),
        queue=Queue.WORKER,
        processes=2,
    ),
    Contender(
        name="worker-change",
        label="worker, updates and deletes",
        argv=_WORKER,
        queue=Queue.WORKER,
        workload=CHANGE,
    ),
    Contender(
        name="plain",
        label="aio-pika + SQLAlchemy + uvloop",
        argv=(*_PYTHON, f"{_MODULE}.plain"),
        share=0.3,
    ),
    Contender(
        name="nothing",
        label="aio-pika, publishes an event and does nothing else",
        argv=(*_PYTHON, f"{_MODULE}.nothing"),
        writes=False,
        yardstick=True,
        share=0.5,
    ),
)

CONTENDERS = {contender.name: contender for contender in _ALL}
