"""How a run is shown while it lasts: live on a terminal, a line a point elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.lab.columns import alone, brief, cells
from worker.lab.measured import Point
from worker.lab.setting import Setting
from worker.lab.units import show_number, show_seconds

BAR_WIDTH = 40
LAST_POINTS = 12
"""So many points are listed while others are measured."""


class PlainView:
    """A line for each point, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

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
            + (f"; about {_time(seconds_left)} left" if seconds_left else ""),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class LiveView(PlainView):
    """The last points and the pool at this moment; rich draws it anew, four times a second."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.points: list[Point] = []
        self._setting: Setting | None = None
        self._tick: dict[str, Any] = {}
        self._whole = self._ends = self._left = 0.0

    def begin(self, setting: Setting, seconds: float) -> None:
        """A point begins."""
        self._setting, self._tick = setting, {}
        self._whole, self._ends = seconds, monotonic() + seconds

    def tick(self, tick: dict[str, Any]) -> None:
        """The pool at this moment."""
        self._tick = tick

    def point(self, point: Point, seconds_left: float) -> None:
        """A point has been measured."""
        self.points.append(point)
        self._left = seconds_left

    def __rich__(self) -> Group:
        now = max(self._ends - monotonic(), 0)
        grid, left = Table.grid(padding=(0, 1)), f"{_time(now)} left"
        if self._left:
            left += f", {_time(now + self._left)} of all"
        if self._setting is not None:
            _add_bar(grid, str(self._setting), self._whole, self._whole - now, Text(left))
        if tick := self._tick:
            most = tick["size"] + tick["max_overflow"]
            _add_bar(grid, "pool", most, tick["in_use"], pool_words(tick))
        return Group(points_table(self.points[-LAST_POINTS:]), Text(), grid)


def _add_bar(grid: Table, name: str, total: float, completed: float, words: Text) -> None:
    bar = ProgressBar(total=total, completed=completed, width=BAR_WIDTH)
    bar.complete_style = bar.finished_style = "green"  # of 16 colours, too, not that of the rest
    grid.add_row(Text(name, style="bold"), bar, words)


def pool_words(tick: dict[str, Any]) -> Text:
    """The pool and its work at this moment."""
    words = Text(f"{tick['in_use']} of {tick['size']}+{tick['max_overflow']} in use")
    if tick["waiting"]:
        words.append(f", {tick['waiting']} waiting", style="red")
    words.append(
        f" · {show_number(tick['throughput_per_second'])}/s · wait "
        f"p50 {show_seconds(tick['wait_p50_seconds'])} "
        f"p99 {show_seconds(tick['wait_p99_seconds'])}"
    )
    for name in ("timeouts", "failed"):
        if tick[name]:
            words.append(f" · {tick[name]} {name}", style="red")
    return words


def points_table(points: Sequence[Point]) -> Table:
    """A line for each point."""
    columns = brief()
    table = Table(box=None, pad_edge=False, header_style="dim", show_header=bool(points))
    for column in columns:
        table.add_column(column.title, justify="right")
    for point in points:
        table.add_row(*cells(columns, alone(point)))
    return table


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def open_view(console: Console) -> Iterator[PlainView]:
    """Live where the console is a terminal that may be redrawn, with all points in the end."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainView(console)
        return
    view = LiveView(console)
    with Live(view, console=console, refresh_per_second=4) as live:
        try:
            yield view
        finally:
            live.update(_all_points(view.points))


def _all_points(points: Sequence[Point]) -> Group:
    """What was asked for apart from pools that were kept full beside it, to see what they can."""
    own = [point for point in points if point.setting.load == "open"]
    probes = [point for point in points if point.setting.load == "closed"]
    if not (own and probes):
        return Group(points_table(points))
    return Group(points_table(own), Text("Probes", style="bold"), points_table(probes))
