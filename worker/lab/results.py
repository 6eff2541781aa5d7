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
from worker.lab.durations import Amount, Count, Model
from worker.lab.findings import CheckResult, Diagnosis, Recommendation, ScalabilityFit
from worker.lab.measured import Point
from worker.lab.setting import Setting

SCHEMA_VERSION = 1


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

    checks: tuple[CheckResult, ...] = ()
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
