"""What can be measured, and a reading of it; `metrics.py` shows them.

An instrument has the name that OpenTelemetry's conventions give it, or one of ours in their manner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from worker.telemetry.histogram import Histogram, Sizes

Kind = Literal["gauge", "counter", "histogram"]
Reading: TypeAlias = tuple[Mapping[str, str], float | Histogram | Sizes]
"""Attributes, and the value at this moment: a histogram for an instrument of that kind."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One thing that is measured; `unit` is `s`, or in braces what is counted."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """Its name on the page.

        `_count` at the end of a name is a histogram's there: what counts is then in the plural.
        """
        name = underscored(self.name) + ("_seconds" if self.unit == "s" else "")
        if self.kind == "counter":
            return f"{name}_total"
        return f"{name.removesuffix('_count')}s" if name.endswith("_count") else name


Read = Callable[[], Iterable[tuple[Instrument, Iterable[Reading]]]]
"""Reads instruments; called for each visit of the page, so it must be quick."""


def underscored(name: str) -> str:
    """A dotted name in the letters that Prometheus allows."""
    return name.replace(".", "_")
