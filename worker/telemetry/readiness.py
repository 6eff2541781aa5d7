"""Whether a part of the worker is well, since when, and why not; `health.py` serves it.

Apart from the pages: whatever connects reports here, and the short commands, which serve no page,
are not to wait until a web server is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from worker.core.messages import utc_now

log = structlog.get_logger(__name__)


@dataclass
class Component:
    """One thing that must be well for the worker to be ready; not ready until first reported."""

    name: str
    reason: str | None = "not connected yet"
    since: datetime = field(default_factory=utc_now)
    has_been_ready: bool = False
    failures: int = 0
    """How often it went from ready to not ready."""
    connections: int = 0
    """How many connections were opened for it."""

    @property
    def ready(self) -> bool:
        """Whether it is well."""
        return self.reason is None

    def up(self) -> None:
        """It is well from now on."""
        if self.reason is not None:
            log.info("ready", part=self.name)
            self.reason, self.since = None, utc_now()
            self.has_been_ready = True

    def down(self, reason: str) -> None:
        """It is not well, and why; says so once for each reason."""
        if reason != self.reason:
            log.warning("not ready", part=self.name, reason=reason)
            if self.reason is None:
                self.since = utc_now()
                self.failures += 1
            self.reason = reason

    def as_json(self) -> dict[str, Any]:
        """The part as `/readyz` shows it."""
        state: dict[str, Any] = {"ready": self.ready, "since": self.since.isoformat()}
        if self.reason is not None:
            state["reason"] = self.reason
        return state
