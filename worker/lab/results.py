"""What a run of the lab found: the schema of `result.json`, documented in `docs/pool-lab.md`.

    Result                 the whole run: about it, its points, what was concluded
    ├── About              when, where, of what, with which seed
    ├── Point …            one setting, measured once
    │   ├── Setting        pool, lanes, load: what was turned
    │   ├── Load, Wait, Hold, Pool, Server, Process, …   what was measured after the warm-up
    │   ├── Sample …       the same over time
    │   └── Check …, Prediction …                       what `analysis.py` adds
    └── Check …, ScalabilityFit, Diagnosis …, Recommendation

Durations are seconds, sizes bytes, CPU cores; a field of another unit says so in its name. `None`
means not measured, never zero.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from worker.core.errors import Misconfigured
from worker.lab.durations import Amount, Count, Durations, Model
from worker.lab.findings import Check, Diagnosis, Prediction, Recommendation, ScalabilityFit
from worker.lab.setting import Setting

SCHEMA_VERSION = 1
HOST_FULL, OTHERS_SHARE = 0.9, 0.2
"""Shares of the machine's cores."""


class Load(Model):
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


class Hold(Model):
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

    load: Load
    throughput_per_second: Amount
    """Pieces of work completed."""
    latency_seconds: Durations
    """From the intended start (open) or the request (closed) to the end of the work; on the path
    `service` to the arrival of its event."""
    wait: Wait
    hold: Hold
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

    checks: tuple[Check, ...] = ()
    predictions: tuple[Prediction, ...] = ()


class Machine(Model):
    """Where the lab ran."""

    cpu: str
    cores: Annotated[int, Field(ge=1)]
    memory_bytes: Count
    system: str
    """Operating system and kernel."""
    database_is_local: bool = True
    """Whether PostgreSQL shared this machine's cores."""


class Objective(Model):
    """What is asked of the pool."""

    wait_p99_seconds: Amount = 0.020
    latency_p99_seconds: Amount | None = None
    """From the intended start to the end; only of `capacity`, where it was asked for."""
    headroom: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the objective that is to stay free."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Worker processes that are to share the server."""


class About(Model):
    """Of what, when, where and how."""

    command: tuple[str, ...] = ()
    """The command line."""
    scenario: str
    scenario_values: dict[str, JsonValue] = Field(default_factory=dict)
    """The scenario as it was run, changes by `--set` included."""
    seed: int
    started_at: datetime
    ended_at: datetime
    versions: dict[str, str]
    """worker, python, sqlalchemy, asyncpg, postgresql, rabbitmq …"""
    machine: Machine
    settings: dict[str, str] = Field(default_factory=dict)
    """The worker's settings by variable, secrets left out."""
    objective: Objective = Objective()


class Result(Model):
    """One run of the lab: `worker lab run`, `sweep` or `capacity`."""

    schema_version: Literal[1] = 1
    kind: Literal["run", "sweep", "capacity"]
    partial: bool = False
    """Stopped before its end: what was measured until then."""
    about: About
    points: tuple[Point, ...]

    checks: tuple[Check, ...] = ()
    """Of the run as a whole; each point has its own."""
    fit: ScalabilityFit | None = None
    diagnoses: tuple[Diagnosis, ...] = ()
    recommendation: Recommendation | None = None
    no_recommendation_because: str | None = None
    capacity_per_second: Amount | None = None
    """The highest rate that kept the objective; only of `capacity`."""

    @property
    def answer(self) -> Setting | None:
        """The setting that all is about: run, found, or recommended; others only probe."""
        if self.kind == "sweep":
            return self.recommendation.setting if self.recommendation else None
        settings = [point.setting for point in self.points]
        if self.kind == "capacity":
            found = self.capacity_per_second
            settings = [each for each in settings if each.rate_per_second == found]
        return next(iter(settings), None)


def save_result(result: Result, path: Path) -> None:
    """Write `result.json`; never half of it, whatever happens meanwhile."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(result.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
    beside.replace(path)


def load_result(path: Path) -> Result:
    """Read a `result.json`, or the one in a folder; raises `Misconfigured` where it is none."""
    file = path / "result.json" if path.is_dir() else path
    try:
        return Result.model_validate_json(file.read_bytes())
    except OSError as error:
        raise Misconfigured(
            f"{file} cannot be read: {error.strerror or error}. Name a result.json, or the folder "
            "that `worker lab run --out` wrote"
        ) from error
    except ValidationError as error:
        raise Misconfigured(f"{file} is no result of the lab: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = "/".join(str(part) for part in fault["loc"])
    if fault["loc"] == ("schema_version",):
        return (
            f"its schema_version is {fault['input']!r}, this version of the worker reads "
            f"{SCHEMA_VERSION}. Read it with the version that wrote it, or measure anew"
        )
    return f"/{where}: {fault['msg']}" if where else str(fault["msg"])
