"""One function a plot: from a result to an Altair chart, or to `None` where it has no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from worker.lab.repeats import Repeats
from worker.lab.report import rows
from worker.lab.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from worker.lab.results import Result

HEIGHT = 300
_TIME_LABEL = (
    f"datum.value <= {rows.LEAST_SHOWN_SECONDS} ? '≤ 10 µs' : "
    "datum.value >= 1 ? format(datum.value, '~g') + ' s' : "
    "datum.value >= 0.001 ? format(datum.value * 1000, '~g') + ' ms' : "
    "format(datum.value * 1000000, '~g') + ' µs'"
)
_PERCENTILE_LABEL = "datum.value <= 1 ? '0 %' : format(100 - 100 / datum.value, '~r') + ' %'"


def throughput(result: Result, groups: Sequence[Repeats]) -> Any:
    """Throughput over connections, its intervals, and the fitted curve."""
    measured = rows.throughput_rows(groups)
    sizes = [each.setting.connections for each in groups]
    x, y = _size_axis(sizes), alt.Y("throughput:Q", title="completed per second")
    base = _chart(measured).encode(x=x, color=_loads(groups))
    bars = base.mark_rule(strokeWidth=2).encode(y=alt.Y("low:Q", title=None), y2="high:Q")
    dots = base.mark_point(size=90, strokeWidth=2).encode(
        y=y,
        fillOpacity=alt.Opacity(
            "state:O",
            title="the pool",
            scale=alt.Scale(domain=["full", "had room"], range=[1, 0.05]),
        ),
        fill=_loads(groups),
        tooltip=[_tip("pool"), _tip("load"), _tip("shown", "completed"), _tip("state", "the pool")],
    )
    layers = [bars, dots]
    if result.fit is not None:
        curve = _chart(rows.curve_rows(result.fit, sizes))
        style = [] if result.fit.agrees else [4, 4]
        layers.insert(
            0, curve.mark_line(color=GREY, strokeWidth=2, strokeDash=style).encode(x=x, y=y)
        )
    return _sized(alt.layer(*layers, *_recommended(result, x)))


def wait(result: Result, groups: Sequence[Repeats]) -> Any:
    """Percentiles of the wait over connections."""
    x = _size_axis([each.setting.connections for each in groups])
    colour = alt.Color(
        "percentile:N",
        title="percentile",
        sort=list(rows.PERCENTILES),
        scale=alt.Scale(
            domain=list(rows.PERCENTILES), range=[GREEN, BLUE, PURPLE, ORANGE, RED, GREY]
        ),
    )
    chart, choice = _chosen(result, groups, rows.wait_rows(groups))
    lines = chart.mark_line(point={"size": 50, "filled": True}, strokeWidth=2).encode(
        x=x,
        y=_time_axis("wait:Q", "wait for a connection"),
        color=colour,
        tooltip=[_tip("pool"), _tip("load"), _tip("percentile"), _tip("shown", "wait")],
    )
    objective = result.about.objective.wait_p99_seconds
    line = _chart([{"wait": objective}])
    asked = line.mark_rule(strokeDash=[6, 4], color=RED, strokeWidth=1.5).encode(y="wait:Q")
    layered = alt.layer(lines, asked, *_recommended(result, x))
    return _sized(_with_choice(layered, choice))


def heat(_: Result, groups: Sequence[Repeats]) -> Any:
    """The p99 of the wait, pool by rate; only where there are several rates."""
    found = rows.heat_rows(groups)
    if len({row["rate"] for row in found}) < 2:
        return None
    base = _chart(found).encode(
        x=alt.X("pool:N", title="pool", sort=alt.SortField("order"), axis=alt.Axis(labelAngle=0)),
        y=alt.Y("rate:O", title="arrivals per second", sort="descending"),
    )
    cells = base.mark_rect(cornerRadius=3).encode(
        color=alt.Color(
            "wait:Q",
            title="wait p99",
            scale=alt.Scale(type="log", scheme="lightorange"),
            legend=alt.Legend(
                labelExpr=_TIME_LABEL,
                gradientLength=320,
                values=[1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10],
            ),
        ),
        tooltip=[
            _tip("pool"),
            alt.Tooltip("rate:Q", title="per second"),
            _tip("shown", "wait p99"),
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
    wanted = rows.setting_name(rows.main_setting(result, groups))
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
        _chart(found)
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
                _tip("what", "what"),
                alt.Tooltip("number:Q", title="number", format=".1f"),
            ],
        )
        .transform_filter("datum.setting == setting")
    )
    return _sized(_with_choice(chart, setting))


def spectrum(result: Result, groups: Sequence[Repeats]) -> Any:
    """Latency by percentile, a line for each pool."""
    found = rows.spectrum_rows(groups)
    if not found:
        return None
    chart, choice = _chosen(result, groups, found)
    sizes = sorted({row["size"] for row in found})
    lines = chart.mark_line(strokeWidth=2, interpolate="step-after").encode(
        x=alt.X(
            "one_in:Q",
            title="percentile",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(
                values=[1, 2, 10, 100, 1_000, 10_000, 100_000], labelExpr=_PERCENTILE_LABEL
            ),
        ),
        y=_time_axis("latency:Q", "latency"),
        color=alt.Color("size:O", title="pool_size", scale=alt.Scale(domain=sizes, scheme="turbo")),
        tooltip=[_tip("pool"), _tip("percentile"), _tip("shown", "latency")],
    )
    return _sized(_with_choice(lines, choice))


def prediction(result: Result, groups: Sequence[Repeats]) -> Any:
    """Predicted and measured p99 of the wait."""
    found = rows.prediction_rows(groups)
    if not found:
        return None
    chart, choice = _chosen(result, groups, found)
    x = _size_axis([each.setting.connections for each in groups])
    y = _time_axis("min(low):Q", "wait for a connection, p99")
    band = chart.mark_area(opacity=0.2, color=GREY).encode(x=x, y=y, y2="max(high):Q")
    line = chart.mark_line(color=GREY, strokeWidth=2).encode(
        x=x, y=alt.Y("mean(predicted):Q", title=None)
    )
    dots = chart.mark_point(color=ORANGE, filled=True, size=80).encode(
        x=x,
        y=alt.Y("measured:Q", title=None),
        tooltip=[_tip("pool"), _tip("load"), _tip("shown", "wait p99")],
    )
    return _sized(_with_choice(alt.layer(band, line, dots), choice))


def hold(result: Result, groups: Sequence[Repeats]) -> Any:
    """The mean hold, split into what it was spent on."""
    found = rows.hold_rows(groups)
    if not found:
        return None
    chart, choice = _chosen(result, groups, found)
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
        tooltip=[_tip("pool"), _tip("part"), _tip("shown", "mean")],
    )
    return _sized(_with_choice(bars, choice))


def _chart(found: Sequence[rows.Row]) -> Any:
    return alt.Chart({"values": list(found)})


def _chosen(result: Result, groups: Sequence[Repeats], found: list[rows.Row]) -> Any:
    """A chart of one series at a time, and the choice where there are several."""
    series = list(dict.fromkeys(row["series"] for row in found))
    chart = _chart(found)
    if len(series) == 1:
        return chart, None
    main = rows.main_setting(result, groups)
    wanted = [name for name in (rows.series_name(main), rows.load_name(main)) if name in series]
    choice = alt.param(
        name="series",
        value=wanted[0] if wanted else series[0],
        bind=alt.binding_select(options=series, name="Load: "),
    )
    return chart.transform_filter("datum.series == series"), choice


def _with_choice(chart: Any, choice: Any) -> Any:
    return chart if choice is None else chart.add_params(choice)


def _loads(groups: Sequence[Repeats]) -> Any:
    names = list(dict.fromkeys(rows.load_name(each.setting) for each in groups))
    return alt.Color("load:N", title="load", sort=names, scale=alt.Scale(domain=names))


def _size_axis(sizes: Sequence[int]) -> Any:
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


def _time_axis(field: str, title: str) -> Any:
    return alt.Y(
        field,
        title=title,
        scale=alt.Scale(type="log"),
        axis=alt.Axis(
            labelExpr=_TIME_LABEL,
            values=[10.0**power for power in range(-5, 3)],
        ),
    )


def _recommended(result: Result, x: Any) -> list[Any]:
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
    base = _chart(at).encode(x=x)
    rule = base.mark_rule(color=GREEN, strokeWidth=2, strokeDash=[2, 3])
    words = base.mark_text(color=GREEN, align="left", dx=6, y=8, fontSize=12, fontWeight="bold")
    return [rule, words.encode(text="words:N")]


def _tip(field: str, title: str | None = None) -> Any:
    return alt.Tooltip(f"{field}:N", title=title or field)


def _sized(chart: Any) -> Any:
    return chart.properties(width="container", height=HEIGHT)
