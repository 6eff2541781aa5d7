"""What several charts have in common: axes, colours, a choice, the line at the recommended size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from worker.lab.repeats import Repeats
from worker.lab.report import rows
from worker.lab.report.style import GREEN, SERIES
from worker.lab.results import Result

HEIGHT = 300
TIME_LABEL = (
    f"datum.value <= {rows.LEAST_SHOWN_SECONDS} ? '≤ 10 µs' : "
    "datum.value >= 1 ? format(datum.value, '~g') + ' s' : "
    "datum.value >= 0.001 ? format(datum.value * 1000, '~g') + ' ms' : "
    "format(datum.value * 1000000, '~g') + ' µs'"
)


def chart_of(found: Iterable[rows.Row]) -> Any:
    """A chart of these rows."""
    return alt.Chart({"values": list(found)})


def chosen(result: Result, groups: Sequence[Repeats], found: Iterable[rows.Row]) -> Any:
    """A chart of one series at a time, and the choice where there are several."""
    found = list(found)
    series, main = list(dict.fromkeys(row["series"] for row in found)), None
    if len(series) == 1:
        return chart_of(found), None
    main = rows.main_setting(result, groups)
    wanted = next((name for name in (main.series, main.load_name) if name in series), series[0])
    chart = chart_of(found).transform_filter("datum.series == series")
    return chart, choice_of("series", series, wanted, label="Load: ")


def choice_of(name: str, options: list[str], value: str, *, label: str = "Setting: ") -> Any:
    """What the page lets one choose."""
    binding = alt.binding_select(options=options, name=label)
    return alt.param(name=name, value=value, bind=binding)


def palette(
    field: str, names: Iterable[str], colours: list[str] = SERIES, *, title: str | None = None
) -> Any:
    """A colour for each of these names."""
    domain = list(names)
    scale = alt.Scale(domain=domain, range=colours)
    return alt.Color(f"{field}:N", title=title, sort=domain, scale=scale)


def size_axis(sizes: Sequence[int]) -> Any:
    """Connections, each size as far from the next as it is times as big."""
    shown = sorted(set(sizes))
    scale = alt.Scale(domain=[0, shown[0] * 2])
    if len(shown) > 1:
        domain = [shown[0] * 0.85, shown[-1] * 1.18]
        scale = alt.Scale(type="log", base=2, nice=False, domain=domain)
    return alt.X(
        "connections:Q",
        title="connections (pool_size + max_overflow)",
        scale=scale,
        axis=alt.Axis(values=shown, format="d", grid=False),
    )


def pool_axis() -> Any:
    """Pools, small ones first."""
    order = alt.SortField("connections")
    return alt.X("pool:N", title="pool", sort=order, axis=alt.Axis(labelAngle=0))


def time_axis(field: str, title: str) -> Any:
    """Durations, logarithmic, a line for each power of ten."""
    axis = alt.Axis(labelExpr=TIME_LABEL, values=[10.0**power for power in range(-5, 3)])
    return alt.Y(field, title=title, scale=alt.Scale(type="log"), axis=axis)


def recommended(result: Result, x: Any) -> list[Any]:
    """A line at the recommended size, where it is one of those measured."""
    advice = result.recommendation
    if advice is None or advice.setting is None:
        return []
    base = chart_of([{"connections": advice.setting.connections, "words": "recommended"}])
    base = base.encode(x=x)
    rule = base.mark_rule(color=GREEN, strokeWidth=2, strokeDash=[2, 3])
    words = base.mark_text(color=GREEN, align="left", dx=6, y=8, fontSize=12, fontWeight="bold")
    return [rule, words.encode(text="words:N")]


def tip(field: str, title: str | None = None) -> Any:
    """One line of what is shown where one points at."""
    return alt.Tooltip(f"{field}:N", title=title or field)


def sized(chart: Any, choice: Any = None) -> Any:
    """As wide as its place, with its choice where there is one."""
    sized = chart.properties(width="container", height=HEIGHT)
    return sized if choice is None else sized.add_params(choice)
