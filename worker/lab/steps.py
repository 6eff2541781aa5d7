"""What a transaction does, as data: a list of steps with the durations that they take.

The database's part is real: statements on the lab's own tables (`tables.py` makes them). A duration
of `query` and `commit` is slept on the server, so that it is known and costs no CPU; `compute` is
the server's CPU.
"""

from __future__ import annotations

import math
from random import Random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

ITEMS = 10_000
"""Rows of the table that `read` and `write` use."""

HOT = 1_000
"""Rows of the table that `lock` uses."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    share: Share = 1
    """How many of the transactions do this: 1 all, 0.01 one in a hundred."""


class Lasting(_Part):
    """A step that takes a time, drawn anew for each transaction."""

    seconds: Seconds
    """Its mean; of `bimodal` what most of them take."""
    distribution: Literal["constant", "exponential", "lognormal", "bimodal"] = "constant"
    sigma: Annotated[float, Field(gt=0, le=3)] = 1
    """Of `lognormal`: the standard deviation of the logarithm."""
    slow_seconds: Seconds = 0
    """Of `bimodal`: what the slow ones take."""
    slow_share: Share = 0
    """Of `bimodal`: how many are slow."""

    def draw(self, random: Random) -> float:
        """A duration, in seconds."""
        match self.distribution:
            case "constant":
                return self.seconds
            case "exponential":
                return random.expovariate(1 / self.seconds) if self.seconds else 0
            case "lognormal":
                # The mean of exp(N(mu, s²)) is exp(mu + s²/2).
                return self.seconds * math.exp(random.gauss(0, self.sigma) - self.sigma**2 / 2)
            case "bimodal":
                return self.slow_seconds if random.random() < self.slow_share else self.seconds


class QueryStep(Lasting):
    """A statement that takes so long on the server, without using its CPU."""

    kind: Literal["query"]


class Think(Lasting):
    """The application's own time, the transaction open: idle in transaction."""

    kind: Literal["think"]


class Commit(Lasting):
    """The commit itself takes so long: a deferred trigger sleeps in it. Once for a whole group."""

    kind: Literal["commit"]


class Spin(Lasting):
    """The application's own CPU: the event loop is busy, nobody else gets on."""

    kind: Literal["spin"]


class Compute(_Part):
    """A statement that uses the server's CPU: it adds up so many numbers."""

    kind: Literal["compute"]
    numbers: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000


class Read(_Part):
    """Reads so many rows by their primary key."""

    kind: Literal["read"]
    rows: Annotated[int, Field(ge=1, le=1_000)] = 1


class Write(_Part):
    """Changes so many rows by their primary key."""

    kind: Literal["write"]
    rows: Annotated[int, Field(ge=1, le=1_000)] = 1


class Lock(_Part):
    """Changes one of a few rows; its lock is held until the commit."""

    kind: Literal["lock"]
    rows: Annotated[int, Field(ge=1, le=HOT)] = 1
    """How many rows they share: 1 is all after the same."""


class Leak(_Part):
    """Never gives the connection back."""

    kind: Literal["leak"]


Step = Annotated[
    QueryStep | Think | Commit | Spin | Compute | Read | Write | Lock | Leak,
    Field(discriminator="kind"),
]
