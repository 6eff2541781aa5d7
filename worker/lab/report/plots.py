"""The plots: Vega-Lite specifications by Altair, drawn by the page's JavaScript or into files."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vl_convert

from worker.lab.repeats import by_setting
from worker.lab.report import charts
from worker.lab.report.style import LIGHT, RED
from worker.lab.results import Result

PICTURE_WIDTH = 760
PIXELS_PER_POINT = 2.0


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


def all_plots(result: Result) -> list[Plot]:
    """Every plot that the result has data for."""
    groups = by_setting(result.points)
    plots = []
    for draw in charts.ALL if groups else ():
        chart = draw(result, groups)
        if chart is not None:
            title, _, lesson = inspect.cleandoc(draw.__doc__ or "").partition(".\n\n")
            words = lesson.replace("\n", " ")
            plots.append(Plot(draw.__name__, title, words, chart.to_dict()))
    return plots


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
