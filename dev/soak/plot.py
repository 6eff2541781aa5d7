"""Every series over time, small and one beside the other, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt

from dev.soak.verdict import SERIES

BLUE, COLUMNS, MOST_POINTS = "#1b6ca8", 4, 300


def draw(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `soak.png` and `soak.svg`."""
    samples = document["samples"]
    samples = samples[:: max(1, len(samples) // MOST_POINTS)]
    charts = []
    for name, bound in SERIES.items():
        scale = 1e-6 if bound.unit == "bytes" else 1
        unit = "MB" if bound.unit == "bytes" else bound.unit or "number"
        values = [{"minutes": it["seconds"] / 60, "value": it[name] * scale} for it in samples]
        charts.append(
            alt.Chart(alt.InlineData(values=values))
            .mark_line(color=BLUE, strokeWidth=1)
            .encode(
                x=alt.X("minutes:Q", title=None),
                y=alt.Y("value:Q", title=unit, scale=alt.Scale(domainMin=0)),
            )
            .properties(width=190, height=110, title=bound.meaning)
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "soak.png", folder / "soak.svg"]
    for path in paths:
        alt.concat(*charts, columns=COLUMNS).save(str(path), scale_factor=2)
    return paths
