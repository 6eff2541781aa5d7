"""What a campaign shows: a line a point in a log, a picture of the pool on a terminal."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tests.support.lab_results import make_point
from worker.lab.results import Point
from worker.lab.setting import Setting
from worker.lab.view import LiveView, PlainView, make_view, pool_bar, show_time


@pytest.fixture(scope="module")
def point() -> Point:
    return make_point(4, max_overflow=2, rate=150, seconds=2)


def tick(**changes: Any) -> dict[str, Any]:
    return {
        "size": 4,
        "max_overflow": 2,
        "in_use": 0,
        "waiting": 0,
        "timeouts": 0,
        "failed": 0,
        "throughput_per_second": 149.0,
        "wait_p50_seconds": 0.0,
        "wait_p99_seconds": 0.0123,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "picture"),
    [
        ({}, "pool [░░░░|··] 0 of 6 in use"),
        ({"in_use": 3}, "pool [███░|··] 3 of 6 in use"),
        ({"in_use": 5, "waiting": 7}, "pool [████|▓·] 5 of 6 in use, 7 waiting"),
        ({"in_use": 2, "max_overflow": 0}, "pool [██░░] 2 of 4 in use"),
    ],
)
def test_the_bar_shows_what_is_used_free_over_and_waited_for(
    changes: dict[str, Any], picture: str
) -> None:
    assert pool_bar(tick(**changes)).plain == picture


def test_a_big_pool_is_drawn_to_scale() -> None:
    bar = pool_bar(tick(size=300, max_overflow=100, in_use=300)).plain
    assert len(bar) < 90
    assert "300 of 400 in use" in bar


def test_settings_are_told_in_short() -> None:
    assert str(Setting(pool_size=4, rate_per_second=150)) == "pool 4+0, 150/s"
    closed = Setting(pool_size=4, max_overflow=2, load="closed", clients=9, lanes=6, group_size=64)
    assert str(closed) == "pool 4+2, 9 clients, 6 lanes, groups of 64"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (130, "2 min 10 s")]
)
def test_a_time_that_is_left_is_read_at_a_glance(seconds: float, words: str) -> None:
    assert show_time(seconds) == words


def test_a_log_gets_a_line_for_each_point(point: Point) -> None:
    text = StringIO()
    view = make_view(Console(file=text))
    assert isinstance(view, PlainView)
    with view:
        view.begin(point.setting, 3)
        view.tick(tick())
        view.point(point, 70)
        view.point(point, 0)
    first, last = text.getvalue().splitlines()
    assert first.startswith("pool 4+2, 150/s: ")
    assert first.endswith("about 1 min 10 s left")
    assert last.endswith("0 failed")


def test_a_terminal_sees_the_pool_and_in_the_end_all_points(point: Point) -> None:
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    view = make_view(console)
    assert isinstance(view, LiveView)
    with view:
        view.begin(point.setting, 3)
        view.tick(tick(in_use=5, waiting=7, timeouts=2, failed=3))
        view.point(point, 70)
        view._live.refresh()
        during = text.getvalue()
        for _ in range(20):
            view.point(point, 0)
    assert "pool [████|▓·] 5 of 6 in use, 7 waiting" in during
    assert "149/s · wait p50 0 s p99 12.3 ms · 2 timeouts · 3 failed" in during
    assert "of all" in during
    # The last frame lists every point, beyond those that were shown meanwhile.
    after = text.getvalue()[len(during) :]
    assert after.rsplit("done/s", 1)[1].count(" 150/s ") == 21
