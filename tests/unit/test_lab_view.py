"""What a campaign shows: a line a point in a log, a picture of the pool on a terminal."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from tests.support.lab_results import make_point
from worker.lab.measured import Point
from worker.lab.setting import Setting
from worker.lab.view import LiveView, open_view, pool_words


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
    ("changes", "words"),
    [
        ({}, "0 of 4+2 in use · "),
        ({"in_use": 5, "waiting": 7}, "5 of 4+2 in use, 7 waiting · "),
        ({"timeouts": 2, "failed": 3}, " p99 12.3 ms · 2 timeouts · 3 failed"),
    ],
)
def test_the_pool_is_told_as_it_is(changes: dict[str, Any], words: str) -> None:
    told = pool_words(tick(**changes)).plain
    assert words in told
    assert "149/s · wait p50 0 s p99 12.3 ms" in told
    assert ("waiting" in told) == ("waiting" in changes)
    assert ("timeouts" in told) == ("timeouts" in changes)


def test_settings_are_told_in_short() -> None:
    assert str(Setting(pool_size=4, rate_per_second=150)) == "pool 4+0, 150/s"
    closed = Setting(pool_size=4, max_overflow=2, load="closed", clients=9, lanes=6, group_size=64)
    assert str(closed) == "pool 4+2, 9 clients, 6 lanes, groups of 64"


def test_a_log_gets_a_line_for_each_point(point: Point) -> None:
    text = StringIO()
    with open_view(Console(file=text)) as view:
        assert not isinstance(view, LiveView)
        view.begin(point.setting, 3)
        view.tick(tick())
        view.point(point, 70)
        view.point(point, 0)
    first, last = text.getvalue().splitlines()
    assert first.startswith("pool 4+2, 150/s: ")
    assert first.endswith("about 0:01:10 left")
    assert last.endswith("0 failed")


def test_a_terminal_sees_the_pool_and_in_the_end_all_points(point: Point) -> None:
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    with open_view(console) as view:
        assert isinstance(view, LiveView)
        view.begin(point.setting, 3)
        view.tick(tick(in_use=3, waiting=7))
        view.point(point, 70)
        console.print(view)
        during = text.getvalue()
        for _ in range(20):
            view.point(point, 0)
    assert "3 of 4+2 in use, 7 waiting" in during
    assert re.search(r"0:00:0[23] left, 0:01:1[23] of all", during)
    # Half of the bar, 40 wide, for three of six connections.
    assert re.search(r"pool +━{20}[^━]", during)
    # The last frame lists every point, beyond those that were shown meanwhile.
    after = text.getvalue()[len(during) :]
    assert after.rsplit("done/s", 1)[1].count(" 150/s ") == 21


def test_a_terminal_is_given_back_whatever_ends_the_run(point: Point) -> None:
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=100)

    def fail() -> None:
        with open_view(console) as view:
            view.point(point, 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert text.getvalue().endswith("\x1b[?25h")  # the cursor is shown again
    assert " 150/s " in text.getvalue()


def test_what_was_asked_for_stands_apart_from_pools_that_were_kept_full(point: Point) -> None:
    text = StringIO()
    full = point.model_copy(update={"setting": Setting(pool_size=3, load="closed", clients=9)})
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    with open_view(console) as view:
        for each in (full, point, full, point):
            view.point(each, 0)
    own, probes = text.getvalue().rsplit("done/s", 2)[1:]
    assert own.count(" 150/s ") == 2
    assert "kept full" not in own
    assert own.rstrip().partition("Probes")[1]
    assert probes.count("kept full") == 2
    assert "150/s" not in probes
