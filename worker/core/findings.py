"""What `worker doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    A `problem` would lose data, stall, or keep a worker from starting; a `note` is worth knowing.
    """

    code: str
    """Stable, for programs."""
    what: str
    why: str
    """Which guarantee it touches, or what goes wrong."""
    fix: str
    """The command that mends it."""
    level: Literal["problem", "note"] = "problem"

    @classmethod
    def of(cls, code: str, error: BaseException, why: str) -> Self:
        """A problem that an error of ours tells of, whose last sentences say what mends it."""
        told = str(error) or type(error).__name__
        what, _, fix = told.partition(". ")
        return cls(code, what, why, fix or "worker doctor, once that is mended")
