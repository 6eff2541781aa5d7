"""What the gate and the meter add to a checkout and to a statement, without the server's time.

    python -m dev.benchmarks.pool_cost

Each figure is the best of several rounds: what else the machine does only adds to it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util import greenlet_spawn

from worker.database.engine import make_engine
from worker.database.pool.checkout import HOLD, Checkout
from worker.database.pool.pool import FairPool
from worker.settings.settings import DatabaseSettings

ROUNDS, TIMES = 9, 5_000


class Nothing:
    """A connection and a cursor that do nothing."""

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass

    def execute(self, statement: str, parameters: Any = None) -> None:
        pass


def microseconds(do: Callable[[], object]) -> float:
    """Of one call, in the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = perf_counter()
        for _ in range(TIMES):
            do()
        best = min(best, (perf_counter() - began) / TIMES)
    return best * 1e6


def checkout(pool: Pool) -> float:
    """A checkout and its return."""
    return microseconds(lambda: pool.connect().close())


def statement() -> tuple[float, float]:
    """A statement as the measured engine runs it, and the bare call of the cursor."""
    engine = make_engine(DatabaseSettings())
    cursor = Nothing()
    entry = SimpleNamespace(record_info={HOLD: Checkout(None, 0, None, None)})
    context = SimpleNamespace(
        root_connection=SimpleNamespace(connection=entry), execution_options={}
    )
    (run,) = engine.dialect.dispatch.do_execute
    measured = microseconds(lambda: run(cursor, "SELECT 1", (), context))
    return measured, microseconds(lambda: engine.dialect.do_execute(cursor, "SELECT 1", ()))  # type: ignore[arg-type]


async def measure() -> dict[str, float]:
    """All figures, in microseconds."""
    fair, plain = FairPool(Nothing), AsyncAdaptedQueuePool(Nothing)  # type: ignore[arg-type]
    fair_checkout = await greenlet_spawn(checkout, fair)
    plain_checkout = await greenlet_spawn(checkout, plain)
    measured, bare = statement()
    return {
        "checkout": round(fair_checkout, 2),
        "checkout_of_sqlalchemy": round(plain_checkout, 2),
        "added_to_a_checkout": round(fair_checkout - plain_checkout, 2),
        "added_to_a_statement": round(measured - bare, 2),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure())))
