"""The plots: Vega-Lite specifications by Altair, drawn by the page's JavaScript or into files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vl_convert

from worker.lab.repeats import Repeats, by_setting
from worker.lab.report import charts
from worker.lab.report.style import LIGHT, RED
from worker.lab.results import Result

PICTURE_WIDTH = 760
PIXELS_PER_POINT = 2.0

Draw = Callable[[Result, Sequence[Repeats]], Any]


@dataclass(frozen=True)
class Plot:
    """A plot, and what to see in it."""

    name: str
    """Of its files."""
    title: str
    lesson: str
    """How to read it."""
    spec: dict[str, Any]
    """Vega-Lite, as wide as its place."""


_PLOTS: tuple[tuple[str, str, str, Draw], ...] = (
    (
        "throughput",
        "Work done by pool size",
        "Each point is a measured setting with its 95 % interval, the line the scalability law "
        "fitted to the pools that were full. Where the line flattens, connections only share what "
        "is used up already; where it falls, they cost each other time. A pool that had room shows "
        "the load, not its own limit.",
        charts.throughput,
    ),
    (
        "wait",
        "Wait for a connection by pool size",
        "Logarithmic: each line of the grid is ten times the one below. The smallest pool whose "
        "p99 stays below the dashed objective is big enough.",
        charts.wait,
    ),
    (
        "heat",
        "Wait (p99) by pool size and rate",
        "Along a row the pool grows, along a column the load. The border between light and dark is "
        "the knee: to its left the queue, not the database, decides how long things take.",
        charts.heat,
    ),
    (
        "time",
        "The pool over time",
        "In use and overflow are connections, waiting are checkouts without one. A staircase that "
        "never comes down is a leak; a queue that only grows is a load that the pool cannot serve.",
        charts.over_time,
    ),
    (
        "spectrum",
        "Latency spectrum",
        "From the intended start to the end. To the right it gets rare: one in ten, in a hundred, "
        "in a thousand. A flat line that jumps is a second kind of work, or something that stops "
        "all of it from time to time.",
        charts.spectrum,
    ),
    (
        "prediction",
        "Wait: predicted and measured",
        "The band is what a simulated queue with the measured holds allows (G/G/c). A point above "
        "it waits for something that is no queue for connections: a busy event loop, for one.",
        charts.prediction,
    ),
    (
        "hold",
        "Where the time of a hold goes",
        "A connection is held from checkout to return. If the bars grow with the pool, connections "
        "wait for each other in the database; if `commit` is most of it, put more work into each "
        "transaction.",
        charts.hold,
    ),
)


def all_plots(result: Result) -> list[Plot]:
    """Every plot that the result has data for."""
    groups = by_setting(result.points)
    drawn = [
        (name, title, lesson, draw(result, groups) if groups else None)
        for name, title, lesson, draw in _PLOTS
    ]
    return [
        Plot(name, title, lesson, chart.to_dict())
        for name, title, lesson, chart in drawn
        if chart is not None
    ]


def save_plot(plot: Plot, folder: Path, *, warning: str | None = None) -> list[Path]:
    """The plot as SVG and PNG, on white; the warning in red below its title."""
    subtitle: dict[str, Any] = {"subtitle": _chosen(plot.spec)}
    if warning is not None:
        subtitle = {
            "subtitle": [*_chosen(plot.spec), warning],
            "subtitleColor": RED,
        }
    spec = {
        **plot.spec,
        "config": {**LIGHT, "background": "white", "padding": 16},
        "title": {"text": plot.title, **subtitle},
        "width": PICTURE_WIDTH,  # a picture has no place that gives it its width
    }
    svg, png = folder / f"{plot.name}.svg", folder / f"{plot.name}.png"
    drawn = vl_convert.vegalite_to_svg(spec)
    svg.write_text(drawn, encoding="utf-8")
    # Of the same drawing: to draw takes longer than to turn it into pixels.
    png.write_bytes(vl_convert.svg_to_png(drawn, scale=PIXELS_PER_POINT))
    return [svg, png]


def _chosen(spec: Any) -> list[str]:
    """What the page lets one choose, as it is chosen at first; a picture shows nothing else."""
    if isinstance(spec, list):
        return [words for part in spec for words in _chosen(part)]
    if not isinstance(spec, dict):
        return []
    own = [param["value"] for param in spec.get("params", []) if "bind" in param]
    return own + _chosen(spec.get("layer"))
