"""On a terminal a line fits; in a pipe nothing is cut or left out."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from rich.cells import cell_len

from tests.in_process import see_terminal
from worker.broker.client.dead_letter import StoredDeadLetter
from worker.broker.client.event_stream import RecordedEvent
from worker.cli.dead_letters.table import LetterTable
from worker.cli.events import EventTable, words_of
from worker.cli.table import TerminalColumn, cell, fitting
from worker.cli.values import age, clock

ID = "0199f3a0-5c5e-7b0a-9d53-0d4a4f1f0b6e"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
WIDE = "データ" * 30


def event(**changes: Any) -> RecordedEvent:
    data = {"id": 1, "username": "ann", "email": WIDE, "rating": None, "version": 1}
    time = f"{datetime.now(UTC) - timedelta(days=3):%Y-%m-%dT%H:%M:%S.%fZ}"
    members = {
        "type": "user.created",
        "subject": "user/1",
        "commandid": ID,
        "time": time,
        "data": data,
    }
    return RecordedEvent(0, "user.created", json.dumps(members | changes).encode())


def letter(number: int = 1, **headers: Any) -> StoredDeadLetter:
    time = f"{datetime.now(UTC) - timedelta(hours=5):%Y-%m-%dT%H:%M:%SZ}"
    known = {
        "x-code": "invalid",
        "x-command-type": "user.create",
        "x-command-id": ID,
        "x-detail": "/data/email is missing " * 20,
        "x-last-time": time,
    }
    return StoredDeadLetter(number, b"{}", Basic.Properties(headers=known | headers))


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 120, 200])
def test_lines_fit_the_terminal_whatever_its_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    see_terminal(monkeypatch, columns)
    events, letters = EventTable(wide=False), LetterTable(wide=False)
    for row in (event(), event(type=WIDE, subject=WIDE, commandid=WIDE), event(data=7)):
        events.emit(row)
    for one in (letter(), letter(99_999, **{"x-command-type": WIDE, "x-code": WIDE})):
        letters.emit(one)
    lines = shown(capsys)

    assert len(lines) == 3 + 2 + 2  # with the titles of both
    assert max(map(cell_len, lines)) == columns


def test_a_narrow_terminal_shows_what_matters_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    see_terminal(monkeypatch, 80)
    EventTable(wide=False).emit(event(data={"username": "ann"}))
    LetterTable(wide=False).emit(letter())
    titles, line, letter_titles, letter_line = shown(capsys)

    assert titles.split() == ["TIME", "EVENT", "SUBJECT", "WHAT"]
    assert line.split() == ["3d", "ago", "user.created", "user/1", "username=ann"]
    assert titles.index("WHAT") == line.index("username=")
    assert letter_titles.split() == ["#", "WHEN", "CODE", "TYPE", "WHY"]
    assert letter_line.split()[:4] == ["1", "5h", "invalid", "user.create"]
    assert letter_titles.index("WHY") == letter_line.index("/data/email")
    assert letter_line.endswith("…")


@pytest.mark.parametrize("wide", [True, False])
def test_where_there_is_room_the_commands_id_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wide: bool
) -> None:
    see_terminal(monkeypatch, 80 if wide else 120)
    EventTable(wide=wide).emit(event())
    LetterTable(wide=wide).emit(letter())
    titles, line, letter_titles, letter_line = shown(capsys)

    assert "COMMAND" in titles
    assert "COMMAND" in letter_titles
    assert ID in line
    assert ID in letter_line
    assert (WIDE in line) is wide
    assert letter_line.endswith("…") is not wide


def test_in_a_pipe_there_are_complete_lines_and_no_titles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert not sys.stdout.isatty()
    EventTable(wide=False).emit(event())
    LetterTable(wide=False).emit(letter())
    line, letter_line = shown(capsys)

    assert ID in line
    assert line.endswith("rating=null")
    assert line[:20].count("-") == 2  # a date
    assert letter_line.count("/data/email is missing") == 20


def test_columns_are_left_out_by_importance() -> None:
    columns = [
        TerminalColumn(name, full=0, fitted=10, importance=n) for n, name in enumerate("cab")
    ]

    titles = ["".join(it.title for it in fitting(columns, width)) for width in (56, 55, 43, 1)]

    assert titles == ["cab", "ab", "b", "b"]


@given(st.text(), st.integers(1, 40))
def test_a_cell_takes_its_width(text: str, width: int) -> None:
    assert cell_len(cell(text, width)) == width


def test_ages() -> None:
    def at(**ago: float) -> str:
        return (NOW - timedelta(**ago)).isoformat()

    assert [age(at(seconds=s), NOW) for s in (-5, 0, 59, 60, 3_599)] == [
        *("0s", "0s", "59s", "1m", "59m")
    ]
    assert [age(at(hours=h), NOW) for h in (1, 23.9, 24, 24 * 400)] == ["1h", "23h", "1d", "400d"]
    assert age("nonsense", NOW) == age("2026-11-28T12:00:00", NOW) == "-"
    assert clock(at(days=2.5), NOW) == "2d ago"
    assert clock(at(seconds=5), NOW) == f"{(NOW - timedelta(seconds=5)).astimezone():%H:%M:%S}"
    assert clock(at(seconds=-5), NOW).count(":") == 2
    assert clock("", NOW) == "-"


def test_an_event_in_words() -> None:
    members = json.loads(event(data={"id": 1, "username": "ann", "rating": None}).body)
    problem = {
        "type": "urn:worker:problem:invalid",
        "code": "invalid",
        "detail": "a (and 1 more)",
        "errors": [{"pointer": "/data/a", "detail": "a"}, {"pointer": "/b", "detail": "\x1b[2J"}],
    }
    refused = members | {"type": "user.create.rejected", "subject": None, "data": problem}

    assert words_of(members) == "user.created  user/1  username=ann rating=null"
    assert words_of(refused).split("\n") == [
        f"user.create.rejected  command {ID}  invalid: a (and 1 more)",
        "  /data/a a",
        "  /b \\x1b[2J",
    ]
