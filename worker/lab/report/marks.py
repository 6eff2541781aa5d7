"""What several charts have in common: axes, colours, a choice, the line at the recommended size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from worker.lab.repeats import Repeats
from worker.lab.report import rows
from worker.lab.report.style import GREEN
from worker.lab.results import Result

HEIGHT = 300
TIME_LABEL = (
    f"datum.value <= {rows.LEAST_SHOWN_SECONDS} ? '≤ 10 µs' : "
    "datum.value >= 1 ? format(datum.value, '~g') + ' s' : "
    "datum.value >= 0.001 ? format(datum.value * 1000, '~g') + ' ms' : "
    "format(datum.value * 1000000, '~g') + ' µs'"
)
PERCENTILE_LABEL = "datum.value <= 1 ? '0 %' : format(100 - 100 / datum.value, '~r') + ' %'"


def chart_of(found: Sequence[rows.Row]) -> Any:
    """A chart of these rows."""
    return alt.Chart({"values": list(found)})


def chosen(result: Result, groups: Sequence[Repeats], found: list[rows.Row]) -> Any:
    """A chart of one series at a time, and the choice where there are several."""
    series = list(dict.fromkeys(row["series"] for row in found))
    chart = chart_of(found)
    if len(series) == 1:
        return chart, None
    main = rows.main_setting(result, groups)
    wanted = [name for name in (main.series, main.load_name) if name in series]
    choice = alt.param(
        name="series",
        value=wanted[0] if wanted else series[0],
        bind=alt.binding_select(options=series, name="Load: "),
    )
    return chart.transform_filter("datum.series == series"), choice


def with_choice(chart: Any, choice: Any) -> Any:
    """The chart with its choice, where there is one."""
    return chart if choice is None else chart.add_params(choice)


def load_colours(groups: Sequence[Repeats]) -> Any:
    """A colour for each load."""
    names = list(dict.fromkeys(each.setting.load_name for each in groups))
    return alt.Color("load:N", title="load", sort=names, scale=alt.Scale(domain=names))


def size_axis(sizes: Sequence[int]) -> Any:
    """Connections, each size as far from the next as it is times as big."""
    shown = sorted(set(sizes))
    spread = len(shown) > 1
    return alt.X(
        "connections:Q",
        title="connections (pool_size + max_overflow)",
        scale=alt.Scale(type="log", base=2, nice=False, domain=[shown[0] * 0.85, shown[-1] * 1.18])
        if spread
        else alt.Scale(domain=[0, shown[0] * 2]),
        axis=alt.Axis(values=shown, format="d", grid=False),
    )


def time_axis(field: str, title: str) -> Any:
    """Durations, logarithmic, a line for each power of ten."""
    return alt.Y(
        field,
        title=title,
        scale=alt.Scale(type="log"),
        axis=alt.Axis(
            labelExpr=TIME_LABEL,
            values=[10.0**power for power in range(-5, 3)],
        ),
    )


def recommended(result: Result, x: Any) -> list[Any]:
    """A line at the recommended size, where it is one of those measured."""
    advice = result.recommendation
    if advice is None:
        return []
    chosen = [
        point.setting.connections
        for point in result.points
        if point.setting.pool_size == advice.pool_size
    ]
    if not chosen:
        return []
    at = [{"connections": min(chosen), "words": "recommended"}]
    base = chart_of(at).encode(x=x)
    rule = base.mark_rule(color=GREEN, strokeWidth=2, strokeDash=[2, 3])
    words = base.mark_text(color=GREEN, align="left", dx=6, y=8, fontSize=12, fontWeight="bold")
    return [rule, words.encode(text="words:N")]


def tip(field: str, title: str | None = None) -> Any:
    """One line of what is shown where one points at."""
    return alt.Tooltip(f"{field}:N", title=title or field)


def sized(chart: Any) -> Any:
    """As wide as its place."""
    return chart.properties(width="container", height=HEIGHT)
