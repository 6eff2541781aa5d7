"""A sweep: the same load on pools of many sizes, and a closer look around the knee."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from worker.lab.measured import Point
from worker.lab.plan import KEEPS_UP, Plan, PlannedTrial
from worker.lab.results import Objective
from worker.lab.scenario import Scenario

CLIENTS_BY_PATH = {"engine": 3, "service": 30}
"""So many clients for each connection keep it busy, in groups of one."""
MOST_CLIENTS = 10_000

CLOSER_LOOKS = 3
"""How many more sizes are measured between the smallest that is good and the next smaller."""


@dataclass(frozen=True)
class Cell:
    """One setting of the matrix."""

    pool_size: int
    overflow: int
    lanes: int | None
    group_size: int
    rate: float | None
    """`None` is the scenario's own."""
    saturated: bool = False
    """As many clients as keep the pool full, in place of arrivals."""

    def of(self, base: Scenario) -> Scenario:
        """The scenario at this setting."""
        connections = self.pool_size + self.overflow
        # A lane holds one connection at a time: more lanes than connections would be for nothing.
        lanes = connections if self.lanes is None and self.group_size > 1 else self.lanes
        load: dict[str, Any] = {} if self.rate is None else {"rate_per_second": self.rate}
        if self.saturated:
            # Through the broker, most of those that ask are on their way there or back.
            each = CLIENTS_BY_PATH[base.path] * self.group_size
            clients = min(connections * each, MOST_CLIENTS)
            load = {"kind": "closed", "clients": clients, "ramp_to_per_second": None}
        return base.changed(
            pool={"pool_size": self.pool_size, "max_overflow": self.overflow},
            work={"lanes": lanes, "group_size": self.group_size},
            load=load,
        )


@dataclass(frozen=True)
class Matrix:
    """Each of these with each."""

    pool_sizes: Sequence[int]
    overflows: Sequence[int] = (0,)
    lanes: Sequence[int | None] = (None,)
    group_sizes: Sequence[int] = (1,)
    rates: Sequence[float | None] = (None,)

    def cells(self) -> Iterator[Cell]:
        """All settings."""
        for values in product(
            self.pool_sizes, self.overflows, self.lanes, self.group_sizes, self.rates
        ):
            yield Cell(*values)


@dataclass
class Sweep:
    """A matrix in an order shuffled by the seed, then a closer look around the knee.

    Each setting is measured `repeats` times with its arrivals, which shows how long they wait, and
    once without its overflow and with as many clients as keep the pool full, which shows the most
    that it can do.
    """

    base: Scenario
    matrix: Matrix
    objective: Objective = field(default_factory=Objective)
    repeats: int = 2
    seed: int = 1
    _found: dict[Cell, list[Point]] = field(default_factory=dict)

    def scenarios(self) -> Iterator[Scenario]:
        """All that may be measured: to be checked before any load is sent."""
        return (cell.of(self.base) for cell in self._cells(self.matrix))

    def plan(self) -> Plan:
        """The trials."""
        cells = self._cells(self.matrix)
        # The machine's speed drifts: in shuffled order that becomes noise instead of a trend.
        random.Random(self.seed).shuffle(cells)  # noqa: S311 - to be repeated, not to be secret
        yield from self._measured(cells)
        for _ in range(CLOSER_LOOKS):
            size = self._between()
            if size is None:
                break
            yield from self._measured(self._cells(self._column(size)))
        return None

    def _cells(self, matrix: Matrix) -> list[Cell]:
        """Each so many times as it is to be measured."""
        cells = list(matrix.cells())
        if self.base.load.kind == "closed":
            return cells * self.repeats
        full = {
            replace(cell, overflow=min(matrix.overflows), rate=None, saturated=True): None
            for cell in cells
        }
        return [*cells * self.repeats, *full]

    def _measured(self, cells: Sequence[Cell]) -> Generator[PlannedTrial, Point, None]:
        for place, cell in enumerate(cells, start=1):
            points = self._found.setdefault(cell, [])
            points.append((yield PlannedTrial(cell.of(self.base), len(points), len(cells) - place)))

    def _column(self, *sizes: int) -> Matrix:
        """These sizes alone, with everything else at its least, and the rate at its highest."""
        rates = sorted(rate for rate in self.matrix.rates if rate is not None)
        return Matrix(
            pool_sizes=sizes,
            overflows=[min(self.matrix.overflows)],
            lanes=self.matrix.lanes[:1],
            group_sizes=[min(self.matrix.group_sizes)],
            rates=rates[-1:] or [None],
        )

    def _between(self) -> int | None:
        """A size between the smallest that is good and the next smaller one that was measured."""
        sizes = {cell.pool_size for cell in self._found}
        points = {
            cell.pool_size: self._found.get(cell, [])
            for cell in self._column(*sorted(sizes)).cells()
        }
        best = max(map(_throughput, points.values()))
        good = [size for size in points if self._is_good(points[size], best)]
        smaller = [size for size in points if good and size < good[0]]
        if not smaller or good[0] - smaller[-1] < 2:
            return None
        return (smaller[-1] + good[0]) // 2

    def _is_good(self, points: Sequence[Point], best: float) -> bool:
        """Whether it does as much as any, and keeps the objective with head-room."""
        allowed = self.objective.wait_p99_seconds * (1 - self.objective.headroom)
        in_time = self.base.load.kind == "closed" or all(
            point.wait.seconds.p99 <= allowed for point in points
        )
        return in_time and _throughput(points) >= KEEPS_UP * best


def _throughput(points: Iterable[Point]) -> float:
    values = [point.throughput_per_second for point in points]
    return sum(values) / len(values) if values else 0.0
