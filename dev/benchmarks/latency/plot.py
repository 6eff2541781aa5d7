"""Latency by percentile, a panel for each way of arrival and rate, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from dev.benchmarks.latency.report import Row

WIDTH, HEIGHT, SCALE = 150, 150, 2
COLOURS = {"worker": "#1b6ca8", "faststream": "#c8553d"}
PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")
KEPT_UP, FELL_BEHIND = "keeps up", "falls behind"


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write `latency.png` and `latency.svg` into the folder."""
    points = [point for row in rows for point in _points(row)]
    lines = (
        alt.Chart(alt.InlineData(values=points))
        .mark_line(point=alt.OverlayMarkDef(size=28))
        .encode(
            x=alt.X("percentile:N", sort=[*PERCENTILES], title=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y(
                "milliseconds:Q",
                title="milliseconds (log)",
                scale=alt.Scale(type="log", nice=True),
                axis=alt.Axis(format="~s", gridColor="#e6e9ec"),
            ),
            color=alt.Color(
                "contender:N",
                title=None,
                scale=alt.Scale(domain=[*COLOURS], range=[*COLOURS.values()]),
                legend=alt.Legend(symbolType="stroke", symbolStrokeWidth=3),
            ),
            strokeDash=alt.StrokeDash(
                "kept_up:N",
                title=None,
                scale=alt.Scale(domain=[KEPT_UP, FELL_BEHIND], range=[[1, 0], [4, 3]]),
                legend=None,
            ),
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    rates = sorted({row.rate for row in rows})
    chart = (
        lines.facet(
            row=alt.Row("arrivals:N", title=None),
            column=alt.Column("rate:N", title=None, sort=[_rate(rate) for rate in rates]),
        )
        .properties(
            title=alt.TitleParams(
                "From the intended time of a command to its event",
                subtitle="Open loop: the load does not wait for answers. "
                "Dashed: the contender falls behind, for as long as the load lasts",
                anchor="start",
            )
        )
        .configure_legend(orient="bottom", labelLimit=400)
        .configure_view(stroke="#d9dee3")
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "latency.png", folder / "latency.svg"]
    for path in paths:
        chart.save(str(path), scale_factor=SCALE)
    return paths


def _points(row: Row) -> Iterator[dict[str, Any]]:
    latency = row.latency
    values = (latency.p50, latency.p90, latency.p99, row.p999, latency.max)
    for percentile, seconds in zip(PERCENTILES, values, strict=True):
        if seconds is not None:
            yield {
                "percentile": percentile,
                "milliseconds": seconds * 1e3,
                "contender": row.contender,
                "arrivals": row.arrivals,
                "rate": _rate(row.rate),
                "kept_up": KEPT_UP if row.kept_up else FELL_BEHIND,
            }


def _rate(rate: float) -> str:
    return f"{rate:,.0f} commands/s"
