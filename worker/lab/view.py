"""How a campaign is shown while it runs: live on a terminal, a line a point elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.lab.columns import alone, brief, cells
from worker.lab.results import Point
from worker.lab.setting import Setting
from worker.lab.units import show_number, show_seconds

POOL_WIDTH = 48
"""Characters of the bar; a bigger pool is drawn to scale."""
LAST_POINTS = 12
"""So many points are listed while others are measured."""


class PlainView:
    """A line for each point, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        pass

    def begin(self, setting: Setting, seconds: float) -> None:
        """A point begins: nothing to be said yet."""

    def tick(self, tick: dict[str, Any]) -> None:
        """The pool at this moment: too much for a log."""

    def point(self, point: Point, seconds_left: float) -> None:
        """One line."""
        self._console.print(
            f"{point.setting}: {show_number(point.throughput_per_second)}/s, "
            f"wait p99 {show_seconds(point.wait.seconds.p99)}, "
            f"latency p99 {show_seconds(point.latency_seconds.p99)}, "
            f"{show_number(point.pool.busy_mean)} busy, {point.load.failed} failed"
            + (f"; about {show_time(seconds_left)} left" if seconds_left else ""),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class LiveView:
    """The pool at this moment and the last points, drawn in place; in the end all points."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4)
        self._points: list[Point] = []
        self._setting: Setting | None = None
        self._tick: dict[str, Any] = {}
        self._began = self._ends = monotonic()
        self._left = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._live.update(_table(self._points) if self._points else Text())
        self._live.stop()

    def begin(self, setting: Setting, seconds: float) -> None:
        """A point begins."""
        self._setting, self._tick = setting, {}
        self._began = monotonic()
        self._ends = self._began + seconds
        self._live.update(self._picture())

    def tick(self, tick: dict[str, Any]) -> None:
        """The pool at this moment."""
        self._tick = tick
        self._live.update(self._picture())

    def point(self, point: Point, seconds_left: float) -> None:
        """A point has been measured."""
        self._points.append(point)
        self._left = seconds_left
        self._live.update(self._picture())

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._points:
            parts += [_table(self._points[-LAST_POINTS:]), Text()]
        if self._setting is not None:
            now = max(self._ends - monotonic(), 0)
            parts.append(Text(f"{self._setting}  ", style="bold").append(self._progress(now)))
        if self._tick:
            parts += [pool_bar(self._tick), _numbers(self._tick)]
        return Group(*parts)

    def _progress(self, now: float) -> Text:
        whole = self._ends - self._began
        done = round(20 * (1 - now / whole)) if whole else 20
        left = f" {show_time(now)} left"
        if self._left:
            left += f", {show_time(now + self._left)} of all"
        return Text("━" * done, style="green").append("━" * (20 - done) + left, style="dim")


def pool_bar(tick: dict[str, Any]) -> Text:
    """In use, free, overflow and waiting: `pool [████████░░░░|▓▓··] 12 waiting`."""
    size: int = tick["size"]
    most: int = size + tick["max_overflow"]
    scale: float = min(1.0, POOL_WIDTH / most)

    def cells(connections: int) -> int:
        return round(connections * scale)

    used = min(tick["in_use"], size)
    over = max(tick["in_use"] - size, 0)
    bar = Text("pool [")
    bar.append("█" * cells(used), style="green")
    bar.append("░" * (cells(size) - cells(used)), style="dim")
    if tick["max_overflow"]:
        bar.append("|").append("▓" * cells(over), style="yellow")
        bar.append("·" * (cells(tick["max_overflow"]) - cells(over)), style="dim")
    bar.append(f"] {tick['in_use']} of {most} in use")
    if tick["waiting"]:
        bar.append(f", {tick['waiting']} waiting", style="red")
    return bar


def show_time(seconds: float) -> str:
    """A time that is left, to be read at a glance: `2 min 10 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _numbers(tick: dict[str, Any]) -> Text:
    words = Text(
        f"{show_number(tick['throughput_per_second'])}/s · wait "
        f"p50 {show_seconds(tick['wait_p50_seconds'])} "
        f"p99 {show_seconds(tick['wait_p99_seconds'])}"
    )
    if tick["timeouts"]:
        words.append(f" · {tick['timeouts']} timeouts", style="red")
    if tick["failed"]:
        words.append(f" · {tick['failed']} failed", style="red")
    return words


def _table(points: Sequence[Point]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = brief()
    for column in columns:
        table.add_column(column.title, justify="right")
    for point in points:
        table.add_row(*cells(columns, alone(point)))
    return table


def make_view(console: Console) -> LiveView | PlainView:
    """Live where the console is a terminal that may be redrawn."""
    return (
        LiveView(console)
        if console.is_terminal and not console.is_dumb_terminal
        else PlainView(console)
    )
