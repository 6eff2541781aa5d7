"""How many processes with such a pool the server has room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from worker.lab.findings import FleetLine
from worker.lab.repeats import Repeats

SHOWN = (1, 2, 4, 8)
"""Numbers of replicas that are shown beside those asked for."""


class Fleet(NamedTuple):
    """replicas x connections + reserve <= max_connections."""

    reserve: int
    lines: tuple[FleetLine, ...]
    most_replicas: int | None


def fleet_of(groups: Sequence[Repeats], connections: int, replicas: int) -> Fleet:
    """The line for a fleet; without lines where the server's `max_connections` is not known."""
    servers = [point.server for each in groups for point in each.points]
    limit = max((server.max_connections or 0 for server in servers), default=0)
    reserve = max((server.reserved_connections or 0 for server in servers), default=0)
    reserve += max((server.other_connections or 0 for server in servers), default=0)
    if not limit:
        return Fleet(reserve, (), None)
    lines = [
        FleetLine(
            replicas=number,
            connections=number * connections + reserve,
            fits=number * connections + reserve <= limit,
        )
        for number in sorted({*SHOWN, replicas})
    ]
    return Fleet(reserve, tuple(lines), max(limit - reserve, 0) // connections)
