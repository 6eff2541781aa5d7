"""Waits that grow: between attempts at a command, at a server, and between starts of a process.

Apart from `fault_kinds.py`, which knows the database's errors: what only waits starts without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

_random = Random()  # noqa: S311 - spreads load, guards nothing


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter.

    The wait before attempt n + 1 is uniform between 0 and `min(cap, base * 2 ** (n - 1))` seconds
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    base_seconds: float
    cap_seconds: float

    def delay(self, attempt: int, *, random: Random = _random) -> float:
        """Seconds to wait after the given attempt, the first being 1."""
        bound = min(self.cap_seconds, self.base_seconds * 2 ** min(attempt - 1, 60))
        return random.uniform(0, bound)


RECONNECT = Backoff(base_seconds=0.5, cap_seconds=5)
"""Waits between attempts to reach a server: back within 10 s of its return (guarantee G6)."""
