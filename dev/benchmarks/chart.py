"""A bar chart of the rates, as PNG and SVG; drawn without any browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt

WIDTH, SCALE = 560, 2
COLOURS = {"worker": "#1b6ca8", "peer": "#9aa5b1", "limit": "#d9dee3"}


def draw(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `rates.png` and `rates.svg` into the folder: medians as bars, the spread as lines."""
    values = [_value(each) for each in document["contenders"] if each["rate"]]
    base = alt.Chart(alt.InlineData(values=values)).encode(
        y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=320))
    )
    bars = base.mark_bar().encode(
        x=alt.X("median:Q", title="commands per second"),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=[*COLOURS], range=[*COLOURS.values()]),
            legend=alt.Legend(orient="bottom"),
        ),
    )
    spread = base.mark_rule(color="#333").encode(x="low:Q", x2="high:Q")
    figures = base.mark_text(align="left", dx=6, color="#333").encode(
        x="high:Q", text=alt.Text("median:Q", format=",.0f")
    )
    chart = (
        (bars + spread + figures)
        .properties(width=WIDTH, title=_title(document))
        .configure_view(stroke=None)
        .configure_axis(grid=False)
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "rates.png", folder / "rates.svg"]
    for path in paths:
        chart.save(str(path), scale_factor=SCALE)
    return paths


def _value(contender: Mapping[str, Any]) -> dict[str, Any]:
    kind = "limit" if contender["yardstick"] else "peer"
    return {
        "label": contender["label"],
        "kind": "worker" if contender["name"].startswith("worker") else kind,
        **contender["rate"],
    }


def _title(document: Mapping[str, Any]) -> alt.TitleParams:
    machine, settings = document["machine"], document["settings"]
    return alt.TitleParams(
        "A full queue drained: one row written and one event confirmed per command",
        subtitle=f"Medians, number of rounds: {settings['rounds']}; lowest to highest as lines; "
        f"{machine['cores']} cores shared by contender, RabbitMQ and PostgreSQL",
        anchor="start",
    )
