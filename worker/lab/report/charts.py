"""One function a plot: from a result to an Altair chart, or to `None` where it has no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from worker.lab.repeats import Repeats
from worker.lab.report import rows
from worker.lab.report.marks import (
    PERCENTILE_LABEL,
    TIME_LABEL,
    chart_of,
    chosen,
    load_colours,
    recommended,
    size_axis,
    sized,
    time_axis,
    tip,
    with_choice,
)
from worker.lab.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from worker.lab.results import Result


def throughput(result: Result, groups: Sequence[Repeats]) -> Any:
    """Throughput over connections, its intervals, and the fitted curve."""
    measured = rows.throughput_rows(groups)
    sizes = [each.setting.connections for each in groups]
    x, y_title = size_axis(sizes), "completed per second"
    y = alt.Y("throughput:Q", title=y_title)
    base = chart_of(measured).encode(x=x, color=load_colours(groups))
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=y_title), y2="high:Q")
    dots = base.mark_point(size=90, strokeWidth=2).encode(
        y=y,
        fillOpacity=alt.Opacity(
            "state:O",
            title="the pool",
            scale=alt.Scale(domain=["full", "had room"], range=[1, 0.05]),
        ),
        fill=load_colours(groups),
        tooltip=[tip("pool"), tip("load"), tip("shown", "completed"), tip("state", "the pool")],
    )
    layers = [bars, dots]
    if result.fit is not None:
        curve = chart_of(rows.curve_rows(result.fit, sizes))
        style = [] if result.fit.agrees else [4, 4]
        layers.insert(
            0, curve.mark_line(color=GREY, strokeWidth=2, strokeDash=style).encode(x=x, y=y)
        )
    return sized(alt.layer(*layers, *recommended(result, x)))


def wait(result: Result, groups: Sequence[Repeats]) -> Any:
    """Percentiles of the wait over connections."""
    x = size_axis([each.setting.connections for each in groups])
    colour = alt.Color(
        "percentile:N",
        title="percentile",
        sort=list(rows.PERCENTILES),
        scale=alt.Scale(
            domain=list(rows.PERCENTILES), range=[GREEN, BLUE, PURPLE, ORANGE, RED, GREY]
        ),
    )
    title = "wait for a connection"
    chart, choice = chosen(result, groups, rows.wait_rows(groups))
    lines = chart.mark_line(point={"size": 50, "filled": True}, strokeWidth=2).encode(
        x=x,
        y=time_axis("wait:Q", title),
        color=colour,
        tooltip=[tip("pool"), tip("load"), tip("percentile"), tip("shown", "wait")],
    )
    objective = result.about.objective.wait_p99_seconds
    line = chart_of([{"wait": objective}])
    asked = line.mark_rule(strokeDash=[6, 4], color=RED, strokeWidth=1.5).encode(
        y=alt.Y("wait:Q", title=title)
    )
    layered = alt.layer(lines, asked, *recommended(result, x))
    return sized(with_choice(layered, choice))


def heat(_: Result, groups: Sequence[Repeats]) -> Any:
    """The p99 of the wait, pool by rate; only where there are several rates."""
    found = rows.heat_rows(groups)
    if len({row["rate"] for row in found}) < 2:
        return None
    base = chart_of(found).encode(
        x=alt.X("pool:N", title="pool", sort=alt.SortField("order"), axis=alt.Axis(labelAngle=0)),
        y=alt.Y("rate:O", title="arrivals per second", sort="descending"),
    )
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color(
            "wait:Q",
            title="wait p99",
            scale=alt.Scale(type="log", scheme="lightorange"),
            legend=alt.Legend(
                labelExpr=TIME_LABEL,
                gradientLength=320,
                values=[1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10],
            ),
        ),
        tooltip=[
            tip("pool"),
            alt.Tooltip("rate:Q", title="per second"),
            tip("shown", "wait p99"),
            alt.Tooltip("lost:Q", title="timed out or dropped"),
        ],
    )
    words = base.mark_text(color="#1c2530", fontSize=12).encode(text="shown:N")
    return alt.layer(cells, words).properties(width="container", height=alt.Step(38))


def over_time(result: Result, groups: Sequence[Repeats]) -> Any:
    """Connections in use, overflow and checkouts that wait, of one setting at a time."""
    found = rows.time_rows(groups)
    if not found:
        return None
    names = list(dict.fromkeys(row["setting"] for row in found))
    wanted = str(rows.main_setting(result, groups))
    setting = alt.param(
        name="setting",
        value=wanted if wanted in names else names[0],
        bind=alt.binding_select(options=names, name="Setting: "),
    )
    colour = alt.Color(
        "what:N",
        title=None,
        scale=alt.Scale(domain=["in use", "overflow", "waiting"], range=[BLUE, PURPLE, ORANGE]),
    )
    chart = (
        chart_of(found)
        .mark_bar(binSpacing=0)
        .encode(
            x=alt.X(
                "second:Q",
                title="seconds since the warm-up",
                bin="binned",
                axis=alt.Axis(tickMinStep=1, grid=False),
            ),
            x2="until:Q",
            y=alt.Y("number:Q", title="connections and checkouts", stack=True),
            color=colour,
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("second:Q", title="second"),
                tip("what", "what"),
                alt.Tooltip("number:Q", title="number", format=".1f"),
            ],
        )
        .transform_filter("datum.setting == setting")
    )
    return sized(with_choice(chart, setting))


def spectrum(result: Result, groups: Sequence[Repeats]) -> Any:
    """Latency by percentile, a line for each pool."""
    found = rows.spectrum_rows(groups)
    if not found:
        return None
    chart, choice = chosen(result, groups, found)
    sizes = sorted({row["size"] for row in found})
    lines = chart.mark_line(strokeWidth=2, interpolate="step-after").encode(
        x=alt.X(
            "one_in:Q",
            title="percentile",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(
                values=[1, 2, 10, 100, 1_000, 10_000, 100_000], labelExpr=PERCENTILE_LABEL
            ),
        ),
        y=time_axis("latency:Q", "latency"),
        color=alt.Color("size:O", title="pool_size", scale=alt.Scale(domain=sizes, scheme="turbo")),
        tooltip=[tip("pool"), tip("percentile"), tip("shown", "latency")],
    )
    return sized(with_choice(lines, choice))


def prediction(result: Result, groups: Sequence[Repeats]) -> Any:
    """Predicted and measured p99 of the wait."""
    found = rows.prediction_rows(groups)
    if not found:
        return None
    chart, choice = chosen(result, groups, found)
    x = size_axis([each.setting.connections for each in groups])
    title = "wait for a connection, p99"
    y = time_axis("min(low):Q", title)
    band = chart.mark_area(opacity=0.2, color=GREY).encode(x=x, y=y, y2="max(high):Q")
    line = chart.mark_line(color=GREY, strokeWidth=2).encode(
        x=x, y=alt.Y("mean(predicted):Q", title=title)
    )
    dots = chart.mark_point(color=ORANGE, filled=True, size=80).encode(
        x=x,
        y=alt.Y("measured:Q", title=title),
        tooltip=[tip("pool"), tip("load"), tip("shown", "wait p99")],
    )
    return sized(with_choice(alt.layer(band, line, dots), choice))


def hold(result: Result, groups: Sequence[Repeats]) -> Any:
    """The mean hold, split into what it was spent on."""
    found = rows.hold_rows(groups)
    if not found:
        return None
    chart, choice = chosen(result, groups, found)
    parts = ["statements", "idle in transaction", "commit", "connect and the rest"]
    bars = chart.mark_bar(size=28).encode(
        x=alt.X("pool:N", title="pool", sort=alt.SortField("order"), axis=alt.Axis(labelAngle=0)),
        y=alt.Y("milliseconds:Q", title="mean hold (ms)"),
        color=alt.Color(
            "part:N",
            title=None,
            sort=parts,
            scale=alt.Scale(domain=parts, range=[BLUE, ORANGE, GREEN, GREY]),
        ),
        order=alt.Order("place:Q"),
        tooltip=[tip("pool"), tip("part"), tip("shown", "mean")],
    )
    return sized(with_choice(bars, choice))
