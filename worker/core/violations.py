"""A rule of the database that a command has broken, as the database names it."""

from __future__ import annotations

from worker.core.messages import value


@value
class Violation:
    """What the database said."""

    code: str
    """SQLSTATE."""
    constraint: str | None = None
    table: str | None = None
    schema: str | None = None
    column: str | None = None
