"""Where `worker watch --from` begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.cli.terminal import Misused
from worker.cli.watch import _start


def test_it_begins_where_it_is_told() -> None:
    now = datetime.now(UTC)
    assert [_start(text) for text in ("first", "next", "last", "17")] == [
        "first",
        "next",
        "last",
        17,
    ]
    time = datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert _start("2026-11-23T08:00:00Z") == time
    assert _start("2026-11-23T10:00:00.5+02:00") == time + timedelta(seconds=0.5)
    ago = _start("90s")
    assert isinstance(ago, datetime)
    assert abs((now - ago).total_seconds() - 90) < 5


@pytest.mark.parametrize("text", ["1960-01-01T00:00:00Z", "99999d", "999999999d"])
def test_what_was_before_all_events_is_the_first(text: str) -> None:
    assert _start(text) == "first"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-23T08:00:00", "a time with its zone"),
        ("2026-11-23", "a time with its zone"),
        ("yesterday", "give first, next, last, an age"),
        ("-5", "give first, next, last, an age"),
        ("9999-01-01T00:00:00Z", "is yet to come"),
    ],
)
def test_what_is_no_beginning_is_told(text: str, words: str) -> None:
    with pytest.raises(Misused, match=words) as caught:
        _start(text)
    assert str(caught.value).startswith(f"--from {text}: ")
