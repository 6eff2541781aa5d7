"""Scenarios: what load meets what pool, as TOML that users copy and change.

    Scenario
    ├── load          when work arrives: open (at set times) or closed (so many clients)
    ├── pool          the pool under test
    ├── work          how transactions are run: lanes, groups
    ├── step …        what each transaction does, in order
    ├── restart       the database goes away in the middle
    └── database      straight to PostgreSQL, or with PgBouncer in front

Everything is checked before any load is sent: an unknown key, a negative rate and the like are
refused by name (`BadScenario`, exit code 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.core.errors import Misconfigured
from worker.lab.setting import Setting
from worker.lab.steps import Leak, Step

Seconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Connections = Annotated[int, Field(ge=1, le=10_000)]


class BadScenario(Misconfigured):
    """A scenario cannot be run as it stands; exit code 2."""


class ScenarioPart(BaseModel):
    """What all parts have in common: frozen, strict about names and types."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


class LoadSettings(ScenarioPart):
    """When work arrives, and for how long."""

    kind: Literal["open", "closed"] = "open"
    """`open`: at set times, whatever becomes of it. `closed`: so many clients, each of which waits
    for its answer before it asks again."""
    arrivals: Literal["poisson", "constant", "burst"] = "poisson"
    """Of an open load: at random, evenly, or `burst_size` at once every `burst_every_seconds`."""
    rate_per_second: Annotated[float, Field(gt=0, le=50_000, allow_inf_nan=False)] = 100
    ramp_to_per_second: Annotated[float, Field(gt=0, le=50_000)] | None = None
    """The rate grows evenly to this, from the end of the warm-up to the end."""
    burst_size: Annotated[int, Field(ge=1, le=100_000)] = 50
    burst_every_seconds: Seconds = 1
    clients: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Of a closed load."""
    think_seconds: Annotated[float, Field(ge=0, le=3_600)] = 0
    """Of a closed load: a client's pause between an answer and its next request."""
    warm_up_seconds: Annotated[float, Field(ge=0, le=3_600)] = 2
    """Load that is sent, and not measured."""
    measure_seconds: Seconds = 10
    most_outstanding: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Work that may be begun and not ended; what comes on top is dropped, and counted."""

    @property
    def mean_rate_per_second(self) -> float | None:
        """Intended arrivals a second, averaged over what is measured; none of a closed load."""
        if self.kind == "closed":
            return None
        if self.arrivals == "burst":
            return self.burst_size / self.burst_every_seconds
        return (self.rate_per_second + (self.ramp_to_per_second or self.rate_per_second)) / 2

    @model_validator(mode="after")
    def _ramps_fit(self) -> LoadSettings:
        if self.ramp_to_per_second is not None and (
            self.kind == "closed" or self.arrivals == "burst"
        ):
            raise ValueError("ramp_to_per_second needs kind = 'open' and no bursts")
        return self


class PoolPart(ScenarioPart):
    """The pool under test, named as in the settings WORKER_DATABASE__…"""

    pool_size: Connections = 10
    max_overflow: Annotated[int, Field(ge=0, le=10_000)] = 5
    pool_timeout_seconds: Seconds = 5
    idle_in_transaction_timeout_seconds: Seconds = 60


class WorkSettings(ScenarioPart):
    """How transactions are run."""

    lanes: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Transactions at the same time; work beyond that waits in memory, not at the pool. By default
    every piece of work begins at once, as the requests of a web server do."""
    group_size: Annotated[int, Field(ge=1, le=1_000)] = 1
    """Most pieces of work that a lane does in one transaction; more than 1 needs lanes."""

    @model_validator(mode="after")
    def _groups_need_lanes(self) -> WorkSettings:
        if self.group_size > 1 and self.lanes is None:
            raise ValueError("group_size > 1 needs lanes: it is a lane that takes a group")
        return self


class Restart(ScenarioPart):
    """The database goes away in the middle, and comes back."""

    at_seconds: Annotated[float, Field(ge=0, le=3_600)] = 4
    """From the end of the warm-up."""
    down_seconds: Annotated[float, Field(ge=0, le=600)] = 1
    """For so long nobody may connect."""
    command: str | None = None
    """A shell command that restarts your server, in place of what the lab does by itself: end its
    own connections as a restart would (57P01), and let nobody into its own database."""


class Database(ScenarioPart):
    """What stands between pool and PostgreSQL."""

    through: Literal["direct", "pgbouncer"] = "direct"
    """`pgbouncer`: one of your own, in transaction mode, at the address in `PGBOUNCER_URL`."""
    bouncer_pool_size: Connections = 10
    """Its `default_pool_size`: so many connections reach the server."""


class Scenario(ScenarioPart):
    """What load meets what pool."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    sentence: Annotated[str, Field(min_length=1, max_length=200)]
    """What it shows, for `worker lab scenarios`."""
    path: Literal["engine", "service"] = "engine"
    """`engine`: pool and database alone. `service`: commands through RabbitMQ."""
    seed: int = 1
    """Of everything that is drawn at random."""
    load: LoadSettings = LoadSettings()
    pool: PoolPart = PoolPart()
    work: WorkSettings = WorkSettings()
    step: Annotated[tuple[Step, ...], Field(min_length=1)]
    restart: Restart | None = None
    database: Database = Database()

    @model_validator(mode="after")
    def _restart_is_measured(self) -> Scenario:
        if self.restart is not None and self.restart.at_seconds >= self.load.measure_seconds:
            raise ValueError("restart.at_seconds lies behind the end: load.measure_seconds")
        return self

    @model_validator(mode="after")
    def _a_leak_needs_no_lanes(self) -> Scenario:
        # A lane that has not given one connection back may not ask for the next.
        if self.work.lanes is not None and any(isinstance(step, Leak) for step in self.step):
            raise ValueError("a leak needs work without lanes: unset work.lanes")
        return self

    @model_validator(mode="after")
    def _the_service_can_run_it(self) -> Scenario:
        if self.path != "service":
            return self
        if any(isinstance(step, Leak) for step in self.step):
            raise ValueError("path = 'service' leaks nothing: a leak needs path = 'engine'")
        if self.database.through == "pgbouncer":
            raise ValueError("path = 'service' runs without PgBouncer: unset database.through")
        if self.connections < 2:
            raise ValueError(
                "path = 'service' needs pool.pool_size + pool.max_overflow of at least 2: the "
                "worker keeps one connection free for its health check"
            )
        return self

    @property
    def worker_lanes(self) -> int:
        """Lanes on the path `service`: one less than there are connections, unless fewer are set.

        The worker keeps one connection free for its health check, and so its lanes never wait.
        """
        most = self.connections - 1
        return min(self.work.lanes or most, most)

    @property
    def connections(self) -> int:
        """The most that the pool may open."""
        return self.pool.pool_size + self.pool.max_overflow

    @property
    def setting(self) -> Setting:
        """What is turned."""
        load = self.load
        return Setting(
            pool_size=self.pool.pool_size,
            max_overflow=self.pool.max_overflow,
            lanes=self.worker_lanes if self.path == "service" else self.work.lanes,
            group_size=self.work.group_size,
            load=load.kind,
            rate_per_second=load.mean_rate_per_second,
            clients=load.clients if load.kind == "closed" else None,
            path=self.path,
        )

    @property
    def server_connections(self) -> int:
        """The most that reach the server: behind a PgBouncer those of its own pool."""
        if self.database.through == "pgbouncer":
            return min(self.connections, self.database.bouncer_pool_size)
        return self.connections

    def changed(self, **parts: Mapping[str, Any]) -> Scenario:
        """The same with some members of some parts set anew, and checked again."""
        members = self.model_dump(exclude_unset=True)
        for part, values in parts.items():
            members[part] = {**members.get(part, {}), **values}
        return checked(members, self.name)


def checked(members: Mapping[str, Any], name: str) -> Scenario:
    """The scenario that these members make; raises `BadScenario` with all that is wrong."""
    try:
        return Scenario.model_validate(members)
    except ValidationError as error:
        faults = "; ".join(_explained(dict(fault)) for fault in error.errors())
        raise BadScenario(f"scenario {name}: {faults}") from None


def _explained(fault: dict[str, Any]) -> str:
    # Of a step, pydantic names the kind between its number and its key.
    path = [str(part) for part in fault["loc"]]
    if path[:1] == ["step"] and len(path) > 3:
        del path[2]
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"{'.'.join(path)}: there is no such key"
    given = f"={fault['input']!r}" if isinstance(fault["input"], str | int | float) else ""
    return f"{'.'.join(path)}{given}: {message}" if path else message
