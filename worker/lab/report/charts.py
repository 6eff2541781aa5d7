"""One function a plot: from a result to an Altair chart, or to `None` where it has no data.

What the page says of a plot is the docstring of its function: its title, and how to read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from worker.lab.repeats import Repeats
from worker.lab.report import rows
from worker.lab.report.marks import (
    TIME_LABEL,
    chart_of,
    choice_of,
    chosen,
    palette,
    pool_axis,
    recommended,
    size_axis,
    sized,
    time_axis,
    tip,
)
from worker.lab.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from worker.lab.results import Result

PERCENTILE_LABEL = "datum.value <= 1 ? '0 %' : format(100 - 100 / datum.value, '~r') + ' %'"


def throughput(result: Result, groups: Sequence[Repeats]) -> Any:
    """Work done by pool size.

    Each point is a measured setting with its 95 % interval, the line the scalability law fitted
    to the pools that were full. Where the line flattens, connections only share what is used up
    already; where it falls, they cost each other time. A pool that had room shows the load, not
    its own limit.
    """
    sizes = [each.setting.connections for each in groups]
    x, title = size_axis(sizes), "completed per second"
    y = alt.Y("throughput:Q", title=title)
    names = list(dict.fromkeys(each.setting.load_name for each in groups))
    colour = palette("load", names, title="load")
    base = chart_of(rows.throughput_rows(groups)).encode(x=x, color=colour)
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    dots = base.mark_point(size=90, strokeWidth=2).encode(
        y=y,
        fillOpacity=alt.Opacity(
            "state:O",
            title="the pool",
            scale=alt.Scale(domain=["full", "had room"], range=[1, 0.05]),
        ),
        fill=colour,
        tooltip=[tip("pool"), tip("load"), tip("shown", "completed"), tip("state", "the pool")],
    )
    layers = [bars, dots]
    if result.fit is not None:
        line = {"color": GREY, "strokeWidth": 2, "strokeDash": [] if result.fit.agrees else [4, 4]}
        curve = chart_of(rows.curve_rows(result.fit, sizes)).mark_line(**line)
        layers.insert(0, curve.encode(x=x, y=y))
    return sized(alt.layer(*layers, *recommended(result, x)))


def wait(result: Result, groups: Sequence[Repeats]) -> Any:
    """Wait for a connection by pool size.

    Logarithmic: each line of the grid is ten times the one below. The smallest pool whose p99
    stays below the dashed objective is big enough.
    """
    x, title = size_axis([each.setting.connections for each in groups]), "wait for a connection"
    chart, choice = chosen(result, groups, rows.wait_rows(groups))
    lines = chart.mark_line(point={"size": 50, "filled": True}, strokeWidth=2).encode(
        x=x,
        y=time_axis("wait:Q", title),
        color=palette(
            "percentile",
            rows.PERCENTILES,
            [GREEN, BLUE, PURPLE, ORANGE, RED, GREY],
            title="percentile",
        ),
        tooltip=[tip("pool"), tip("load"), tip("percentile"), tip("shown", "wait")],
    )
    objective = chart_of([{"wait": result.about.objective.wait_p99_seconds}])
    asked = objective.mark_rule(strokeDash=[6, 4], color=RED, strokeWidth=1.5)
    asked = asked.encode(y=alt.Y("wait:Q", title=title))
    return sized(alt.layer(lines, asked, *recommended(result, x)), choice)


def heat(_: Result, groups: Sequence[Repeats]) -> Any:
    """Wait (p99) by pool size and rate.

    Along a row the pool grows, along a column the load. The border between light and dark is
    the knee: to its left the queue, not the database, decides how long things take.
    """
    found = list(rows.heat_rows(groups))
    if len({row["rate"] for row in found}) < 2:
        return None
    base = chart_of(found).encode(
        x=pool_axis(), y=alt.Y("rate:O", title="arrivals per second", sort="descending")
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


def time(result: Result, groups: Sequence[Repeats]) -> Any:
    """The pool over time.

    In use and overflow are connections, waiting are checkouts without one. A staircase that
    never comes down is a leak; a queue that only grows is a load that the pool cannot serve.
    """
    found = list(rows.time_rows(groups))
    if not found:
        return None
    names = list(dict.fromkeys(row["setting"] for row in found))
    wanted = str(rows.main_setting(result, groups))
    bars = (
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
            color=palette("what", ["in use", "overflow", "waiting"], [BLUE, PURPLE, ORANGE]),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("second:Q", title="second"),
                tip("what"),
                alt.Tooltip("number:Q", title="number", format=".1f"),
            ],
        )
        .transform_filter("datum.setting == setting")
    )
    return sized(bars, choice_of("setting", names, wanted if wanted in names else names[0]))


def spectrum(result: Result, groups: Sequence[Repeats]) -> Any:
    """Latency spectrum.

    From the intended start to the end. To the right it gets rare: one in ten, in a hundred, in
    a thousand. A flat line that jumps is a second kind of work, or something that stops all of
    it from time to time.
    """
    found = list(rows.spectrum_rows(groups))
    if not found:
        return None
    chart, choice = chosen(result, groups, found)
    sizes = sorted({row["size"] for row in found})
    ticks = [1, 2, 10, 100, 1_000, 10_000, 100_000]
    lines = chart.mark_line(strokeWidth=2, interpolate="step-after").encode(
        x=alt.X(
            "one_in:Q",
            title="percentile",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=ticks, labelExpr=PERCENTILE_LABEL),
        ),
        y=time_axis("latency:Q", "latency"),
        color=alt.Color("size:O", title="pool_size", scale=alt.Scale(domain=sizes, scheme="turbo")),
        tooltip=[tip("pool"), tip("percentile"), tip("shown", "latency")],
    )
    return sized(lines, choice)


def prediction(result: Result, groups: Sequence[Repeats]) -> Any:
    """Wait: predicted and measured.

    The band is what a simulated queue with the measured holds allows (G/G/c). A point above it
    waits for something that is no queue for connections: a busy event loop, for one.
    """
    found = list(rows.prediction_rows(groups))
    if not found:
        return None
    chart, choice = chosen(result, groups, found)
    title = "wait for a connection, p99"
    base = chart.encode(x=size_axis([each.setting.connections for each in groups]))
    band = base.mark_area(opacity=0.2, color=GREY)
    line = base.mark_line(color=GREY, strokeWidth=2)
    dots = base.mark_point(color=ORANGE, filled=True, size=80)
    layers = (
        band.encode(y=time_axis("min(low):Q", title), y2="max(high):Q"),
        line.encode(y=alt.Y("mean(predicted):Q", title=title)),
        dots.encode(
            y=alt.Y("measured:Q", title=title),
            tooltip=[tip("pool"), tip("load"), tip("shown", "wait p99")],
        ),
    )
    return sized(alt.layer(*layers), choice)


def hold(result: Result, groups: Sequence[Repeats]) -> Any:
    """Where the time of a hold goes.

    A connection is held from checkout to return. If the bars grow with the pool, connections
    wait for each other in the database; if `commit` is most of it, put more work into each
    transaction.
    """
    found = list(rows.hold_rows(groups))
    if not found:
        return None
    chart, choice = chosen(result, groups, found)
    bars = chart.mark_bar(size=28).encode(
        x=pool_axis(),
        y=alt.Y("milliseconds:Q", title="mean hold (ms)"),
        color=palette("part", rows.HOLD_PARTS, [BLUE, ORANGE, GREEN, GREY]),
        order=alt.Order("place:Q"),
        tooltip=[tip("pool"), tip("part"), tip("shown", "mean")],
    )
    return sized(bars, choice)


ALL = (throughput, wait, heat, time, spectrum, prediction, hold)
"""In the order of the page."""
