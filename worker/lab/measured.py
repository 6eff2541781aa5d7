"""What was measured of one setting: the parts of a `Point` (`results.py`)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from worker.lab.durations import Amount, Count, Durations, Model
from worker.lab.findings import CheckResult, Prediction
from worker.lab.setting import Setting

HOST_FULL, OTHERS_SHARE = 0.9, 0.2
"""Shares of the machine's cores."""


class MeasuredLoad(Model):
    """What the generator meant to do, and what came of it."""

    intended: Count
    """Pieces of work whose time came. A closed load intends what it starts."""
    started: Count
    late: Count = 0
    """Of those started: more than 10 ms after their time, by the generator's own fault."""
    dropped: Count = 0
    """Never started: too many were outstanding already."""
    completed: Count
    failed: Count = 0
    """Ended with an error; pool timeouts included."""
    lateness_seconds: Durations | None = None
    """From the intended to the true start."""
    arrivals: Literal["poisson", "constant", "burst", "closed"] = "poisson"


class Wait(Model):
    """How long checkouts waited for a connection; those that timed out are included."""

    seconds: Durations
    waited_share: Annotated[float, Field(ge=0, le=1)]
    """Share of checkouts that found no free connection."""
    timeouts: Count = 0
    queue_mean: Amount = 0.0
    """Checkouts that waited, averaged over time."""
    queue_max: Count = 0
    max_to_median: Amount | None = None
    """Longest wait : median wait, of those that waited."""
    jain_index: Annotated[float, Field(ge=0, le=1)] | None = None
    """Jain's fairness index (Jain, Chiu, Hawe 1984) of the mean wait of each requester (client,
    lane, or a slot that arrivals take in turn): 1 is perfectly fair, 1/n the opposite."""


class HoldTime(Model):
    """How long connections were checked out, and what for."""

    seconds: Durations
    """From being let in until the connection was back; the opening of a new one included."""
    query_seconds: Durations | None = None
    """Each statement."""
    idle_in_transaction_seconds: Durations | None = None
    """Each hold: how long its transactions lay idle between statements, the application's time."""
    commit_seconds: Durations | None = None
    """Each COMMIT."""
    rollback_seconds: Durations | None = None
    """Each ROLLBACK."""


class Pool(Model):
    """The pool over time. Sampled by the clock, never worked out from the holds: the check of
    Little's law compares the two."""

    busy_mean: Amount
    """Connections checked out, averaged over time; those that are just being opened included."""
    busy_p95: Amount
    busy_max: Count
    overflow_seconds: Amount = 0.0
    """Time with more than `pool_size` connections checked out."""
    connects: Count = 0
    """Connections opened, the warm-up not counted."""
    connects_per_second: Amount = 0.0
    connect_seconds: Durations | None = None
    closed: Count = 0
    recycled: Count = 0
    invalidated: Count = 0
    still_out: Count = 0
    """Connections that were checked out when all work had ended: leaked."""
    still_out_at: tuple[str, ...] = ()
    """The lines of code that had taken them."""


class Activity(Model):
    """Sessions of this run in `pg_stat_activity`, averaged over the samples."""

    state: str
    """`active`, `idle`, `idle in transaction` …"""
    wait_event_type: str | None = None
    wait_event: str | None = None
    """What they waited for; `None` is the CPU, or nothing."""
    sessions_mean: Amount
    sessions_max: Count


class Server(Model):
    """PostgreSQL, seen from outside the pool."""

    activity: tuple[Activity, ...] = ()
    lock_wait_sessions_mean: Amount = 0.0
    """Sessions that waited for a lock (`wait_event_type = 'Lock'`)."""
    commits: Count | None = None
    """As the server counts them: once a second, and only where a table was touched."""
    rollbacks: Count | None = None
    deadlocks: Count | None = None
    cpu_cores: Amount | None = None
    """CPU that its processes used; only where it runs on this machine."""
    max_connections: Count | None = None
    reserved_connections: Count | None = None
    """`superuser_reserved_connections` and `reserved_connections`."""
    other_connections: Count | None = None
    """Sessions of others when the run began."""


class Process(Model):
    """One of the lab's own processes."""

    cpu_cores: Amount
    """CPU used in a second; one event loop is full at 1."""
    loop_lag_seconds: Durations | None = None
    """How much later than asked its event loop woke up."""


class Host(Model):
    """The machine that the lab ran on, within the window."""

    cores: Annotated[int, Field(ge=1)]
    cpu_cores: Amount
    """CPU that all programs used, and what a virtual machine was kept waiting for."""
    others_cpu_cores: Amount
    """Of it, what neither the lab used nor a PostgreSQL whose processes it can see."""

    @property
    def is_taken_by_others(self) -> bool:
        """Whether no core was free, and others had a good part of them."""
        full = self.cpu_cores >= HOST_FULL * self.cores
        return full and self.others_cpu_cores >= OTHERS_SHARE * self.cores


class Broker(Model):
    """RabbitMQ; only on the path `service`."""

    ready_mean: Amount
    """Commands in the queue that no worker had."""
    ready_max: Count
    unacknowledged_mean: Amount | None = None
    confirm_seconds: Durations | None = None
    """From an event's publish to its confirm."""
    cpu_cores: Amount | None = None


class Sample(Model):
    """One interval of a point."""

    at_seconds: Amount
    """Begin of the interval, from the end of the warm-up."""
    busy: Amount
    overflow: Amount = 0.0
    waiting: Amount
    throughput_per_second: Amount
    wait_p99_seconds: Amount | None = None
    latency_p99_seconds: Amount | None = None
    timeouts: Count = 0
    errors: Count = 0
    connects: Count = 0


class Point(Model):
    """One setting, measured once."""

    setting: Setting
    repeat: Count = 0
    """0 for the first time that this setting was measured."""
    order: Count = 0
    """Its place in the shuffled order of the run."""
    started_at: datetime
    warm_up_seconds: Amount
    measured_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Length of the window that everything below was measured in."""
    partial: bool = False
    """Cut short, by Ctrl-C for one."""

    load: MeasuredLoad
    throughput_per_second: Amount
    """Pieces of work completed."""
    latency_seconds: Durations
    """From the intended start (open) or the request (closed) to the end of the work; on the path
    `service` to the arrival of its event."""
    wait: Wait
    hold: HoldTime
    pool: Pool
    errors: dict[str, Count] = Field(default_factory=dict)
    """By SQLSTATE, or by the exception's name where there is none."""
    server: Server = Server()
    worker: Process | None = None
    """The process that has the pool."""
    generator: Process | None = None
    """The process that makes the load."""
    broker: Broker | None = None
    host: Host | None = None

    sample_seconds: Annotated[float, Field(gt=0)] = 1.0
    """Length of one interval of `samples`."""
    samples: tuple[Sample, ...] = ()

    checks: tuple[CheckResult, ...] = ()
    predictions: tuple[Prediction, ...] = ()
