"""`/metrics`: what the worker measures, for Prometheus to collect.

Instruments are shown as OpenTelemetry's rules for Prometheus say: dots become underscores,
durations are in seconds and end in `_seconds`, counters end in `_total`. `promtool` accepts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from worker.telemetry.histogram import Histogram, Sizes
from worker.telemetry.instruments import Instrument, Read, Reading, underscored


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
        return [_family(instrument, readings) for instrument, readings in self._read()]


def _family(instrument: Instrument, readings: Iterable[Reading]) -> Metric:
    """An instrument's readings, as they are shown."""
    name, meaning = instrument.prometheus_name, instrument.meaning
    labels = [underscored(attribute) for attribute in instrument.attributes]

    def values(attributes: Mapping[str, str]) -> list[str]:
        return [attributes[name] for name in instrument.attributes]

    if instrument.kind == "histogram":
        durations = HistogramMetricFamily(name, meaning, labels=labels)
        for attributes, value in readings:
            assert isinstance(value, Histogram | Sizes)
            durations.add_metric(values(attributes), _buckets(value), value.sum)
        return durations
    family = CounterMetricFamily if instrument.kind == "counter" else GaugeMetricFamily
    numbers = family(name, meaning, labels=labels)
    for attributes, value in readings:
        assert not isinstance(value, Histogram | Sizes)
        numbers.add_metric(values(attributes), value)
    return numbers


def _buckets(histogram: Histogram | Sizes) -> list[tuple[str, float]]:
    counts = zip(histogram.bounds, histogram.up_to(), strict=True)
    return [*((str(bound), count) for bound, count in counts), ("+Inf", histogram.count)]
