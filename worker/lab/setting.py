"""What was turned for a measurement, and how people call it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from worker.lab.durations import Amount, Count, Model
from worker.lab.units import counted, show_number


class Setting(Model):
    """What was turned: two points with equal settings are repeats of each other."""

    pool_size: Annotated[int, Field(ge=1)]
    """Connections that the pool keeps open."""
    max_overflow: Count = 0
    """Further connections that it may open under load."""
    lanes: Annotated[int, Field(ge=1)] | None = None
    """Concurrent transactions; more work than that waits in memory, not at the pool. `None`: every
    piece of work begins as soon as it arrives."""
    group_size: Annotated[int, Field(ge=1)] = 1
    """Most commands in one transaction."""
    load: Literal["open", "closed"] = "open"
    """`open`: arrivals at a set rate, whatever the answers do. `closed`: so many clients, each of
    which waits for its answer."""
    rate_per_second: Amount | None = None
    """Intended arrivals; only of an open load."""
    clients: Annotated[int, Field(ge=1)] | None = None
    """Only of a closed load."""
    path: Literal["engine", "service"] = "engine"
    """`engine`: sessions on the pooled engine. `service`: commands through RabbitMQ."""

    @property
    def connections(self) -> int:
        """The most that the pool may open."""
        return self.pool_size + self.max_overflow

    @property
    def pool(self) -> str:
        """The pool as people write it: `8+4`."""
        return f"{self.pool_size}+{self.max_overflow}"

    @property
    def load_name(self) -> str:
        """The load and the group size: what pools of growing size have in common."""
        return ", ".join(self._load_parts(lanes=None))

    @property
    def load_words(self) -> str:
        """The load and whatever else tells settings with the same pool apart."""
        return ", ".join(self._load_parts(lanes=self.lanes))

    @property
    def series(self) -> str:
        """What the pools on one line of a plot have in common."""
        return f"{self.load_name}, overflow {self.max_overflow}"

    def __str__(self) -> str:
        """All that was turned: `pool 4+2, 150/s, 6 lanes`."""
        return f"pool {self.pool}, {self.load_words}"

    def _load_parts(self, *, lanes: int | None) -> list[str]:
        parts = [f"{show_number(self.rate_per_second or 0)}/s"]
        if self.load == "closed":
            clients = self.clients or 0
            full = clients >= self.connections * self.group_size
            parts = ["kept full" if full else counted(clients, "client")]
        if lanes is not None:
            parts.append(counted(lanes, "lane"))
        if self.group_size > 1:
            parts.append(f"groups of {self.group_size}")
        return parts
