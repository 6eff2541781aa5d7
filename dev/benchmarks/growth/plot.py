"""Rate over rows, memory over time, and rate over lanes, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt

from dev.benchmarks.growth.report import MOST_BYTES, Row, rows
from dev.benchmarks.growth.station import Drained

WIDTH, HEIGHT, SCALE = 240, 200, 2
BLUE, ORANGE = "#1b6ca8", "#d98e32"
GRID = alt.Axis(gridColor="#e6e9ec")


def draw(turns: Sequence[Drained], folder: Path) -> list[Path]:
    """Write `growth.png` and `growth.svg` into the folder, with the parts that were measured."""
    charts: list[Any] = []
    if found := rows(turns, "rows"):
        charts.append(_rates(found, "rows in users and ledger each", "keys:N"))
    if backlog := [turn for turn in turns if turn.part == "backlog"]:
        charts.append(_memory(backlog))
    if found := rows(turns, "lanes"):
        charts.append(_rates(found, "lanes", None))
    chart = (
        alt.hconcat(*charts, spacing=40)
        .resolve_scale(color="independent")
        .configure_legend(orient="bottom", title=None, symbolType="stroke", symbolStrokeWidth=3)
        .configure_view(stroke="#d9dee3")
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "growth.png", folder / "growth.svg"]
    for path in paths:
        chart.save(str(path), scale_factor=SCALE)
    return paths


def _rates(found: Sequence[Row], what: str, colour: str | None) -> Any:
    values = [
        {
            "size": f"{row.size:,}" if row.size else "empty",
            "keys": f"{row.keys} keys",
            "median": row.rate.median,
            "low": row.rate.low,
            "high": row.rate.high,
        }
        for row in found
    ]
    order = list(dict.fromkeys(str(value["size"]) for value in values))
    base = alt.Chart(alt.InlineData(values=values)).encode(
        x=alt.X("size:O", sort=order, title=what, axis=alt.Axis(labelAngle=0)),
        color=alt.Color(colour, scale=alt.Scale(range=[BLUE, ORANGE]))
        if colour
        else alt.value(BLUE),
    )
    line = base.mark_line(point=True).encode(
        y=alt.Y("median:Q", title="commands per second", axis=GRID, scale=alt.Scale(zero=True))
    )
    spread = base.mark_rule().encode(y=alt.Y("low:Q", title=""), y2="high:Q")
    title = f"Throughput over {'rows' if colour else 'lanes'}"
    return (line + spread).properties(width=WIDTH, height=HEIGHT, title=title)


def _memory(turns: Sequence[Drained]) -> Any:
    values = [
        {"seconds": seconds, "MB": used / 1e6, "queue": f"{turn.commands:,} commands waiting"}
        for turn in turns
        if turn.round == turns[0].round
        for seconds, used in turn.memory
    ]
    lines = (
        alt.Chart(alt.InlineData(values=values))
        .mark_line()
        .encode(
            x=alt.X("seconds:Q", axis=GRID),
            y=alt.Y("MB:Q", title="resident memory, MB", axis=GRID, scale=alt.Scale(domainMin=0)),
            color=alt.Color("queue:N", scale=alt.Scale(range=[BLUE, ORANGE])),
        )
    )
    limit = (
        alt.Chart(alt.InlineData(values=[{"MB": MOST_BYTES / 1e6}]))
        .mark_rule(strokeDash=[4, 3], color="#888")
        .encode(y="MB:Q")
    )
    return (lines + limit).properties(
        width=WIDTH, height=HEIGHT, title="Memory while a backlog is drained"
    )
