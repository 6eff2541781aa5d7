"""`/metrics`: what the worker measures, for Prometheus to collect.

An instrument has the name that OpenTelemetry's conventions give it, or one of ours in their manner.
It is shown as their rules for Prometheus say: dots become underscores, durations are in seconds and
end in `_seconds`, counters end in `_total`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from worker.telemetry.histogram import STANDARD_BOUNDS, Histogram

Kind = Literal["gauge", "counter", "histogram"]
Reading: TypeAlias = tuple[Mapping[str, str], float | Histogram]
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
        """Its name on the page."""
        total = "_total" if self.kind == "counter" else ""
        return underscored(self.name) + ("_seconds" if self.unit == "s" else "") + total

    def family(self, readings: Iterable[Reading]) -> Metric:
        """Its readings, as they are shown."""
        name = self.prometheus_name
        labels = [underscored(attribute) for attribute in self.attributes]
        if self.kind == "histogram":
            durations = HistogramMetricFamily(name, self.meaning, labels=labels)
            for attributes, value in readings:
                assert isinstance(value, Histogram)
                durations.add_metric(self._values(attributes), _buckets(value), value.sum)
            return durations
        family = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        numbers = family(name, self.meaning, labels=labels)
        for attributes, value in readings:
            assert not isinstance(value, Histogram)
            numbers.add_metric(self._values(attributes), value)
        return numbers

    def _values(self, attributes: Mapping[str, str]) -> Sequence[str]:
        return [attributes[name] for name in self.attributes]


def underscored(name: str) -> str:
    """A dotted name in the letters that Prometheus allows."""
    return name.replace(".", "_")


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    counts = zip(STANDARD_BOUNDS, histogram.up_to(), strict=True)
    return [*((str(bound), count) for bound, count in counts), ("+Inf", histogram.count)]


Read = Callable[[], Iterable[tuple[Instrument, Iterable[Reading]]]]
"""Reads instruments; called for each visit of the page, so it must be quick."""


class Metrics:
    """Collects what parts of the worker measure, and serves it; the process's own figures too."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)

    def add(self, read: Read) -> None:
        """Show what `read` finds, beside the rest."""
        self._registry.register(_Collector(read))

    async def page(self, request: web.Request) -> web.Response:
        """The page, in OpenMetrics where that is asked for."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = encode(self._registry)
        return web.Response(body=body, headers={"Content-Type": content_type})


class _Collector:
    def __init__(self, read: Read) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return [instrument.family(readings) for instrument, readings in self._read()]
