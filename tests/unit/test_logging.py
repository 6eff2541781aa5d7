"""Logs: one line an event, and nothing that a stranger wrote moves a cursor or forges a line."""

from __future__ import annotations

import asyncio
import gc
import json
import logging

import asyncpg
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import turns
from worker.telemetry.logging import _escape_control, configure_logging

HOSTILE = "a\r\n2026-01-01 [info] forged\x1b[2J\x9b31m\u202e\u2028\x00"


pytestmark = pytest.mark.usefixtures("logging_restored")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines(keepends=True)


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_event_is_one_line_whatever_its_values(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    configure_logging(form=form)
    structlog.get_logger("worker.test").warning("attempt failed", command=HOSTILE, reason=HOSTILE)
    (line,) = lines(capsys)

    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert "attempt failed" in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_librarys_message_is_one_line_too(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(form=form)
    logging.getLogger("library").warning("got %s", HOSTILE)
    (line,) = lines(capsys)

    assert line[:-1].isprintable()
    assert "got a" in line


@pytest.mark.parametrize("form", ["json", "console"])
def test_values_within_values_are_escaped(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(form=form)
    structlog.get_logger().info("event", headers={"name": HOSTILE}, items=[HOSTILE])
    (line,) = lines(capsys)

    assert line[:-1].isprintable()


@pytest.mark.parametrize("form", ["json", "console"])
def test_the_text_of_an_exception_moves_no_cursor(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    configure_logging(form=form)
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        structlog.get_logger().warning("attempt failed", exc_info=error)
    text = "".join(lines(capsys))

    assert "ValueError" in text
    assert all(char.isprintable() or char == "\n" for char in text)
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_long_is_cut(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(form=form)
    text = "begin" + "x" * 10_000 + "end"
    try:
        raise ValueError(text + "\ny" * 10_000)
    except ValueError as error:
        structlog.get_logger().warning(text, command=text, exc_info=error)
    written = "".join(lines(capsys))

    assert written.count("begin") == written.count("end") == 3
    assert "9,008 characters" in written
    assert "ValueError" in written
    assert "lines …" in written.encode().decode("unicode_escape") if form == "json" else written
    assert len(written) < 8_000


def test_a_secret_in_a_variable_is_not_part_of_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(form="console")
    password = "".join(["s3", "cret"])
    try:
        raise ValueError(len(password))
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "s3cret" not in "".join(lines(capsys))


@pytest.mark.parametrize(("no_color", "has_colour"), [("1", False), ("", True)])
def test_a_terminal_shows_colours_unless_they_are_not_wanted(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    no_color: str,
    has_colour: bool,
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", no_color)
    configure_logging()
    structlog.get_logger().info("ready", part="database")
    (line,) = lines(capsys)

    assert "ready" in line
    assert ("\x1b[" in line) is has_colour


def test_json_lines_can_be_read_by_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(form="json")
    structlog.get_logger("worker.test").info("ready", part="database", text=HOSTILE)
    (line,) = lines(capsys)
    read = json.loads(line)

    assert (read["event"], read["part"], read["level"]) == ("ready", "database", "info")
    assert read["text"] == HOSTILE
    assert read["timestamp"].endswith("Z")
    assert read["logger"] == "worker.test"


def test_auto_is_json_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    structlog.get_logger().info("ready")

    assert json.loads(lines(capsys)[0])["event"] == "ready"


def test_what_is_less_severe_than_the_level_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(level="warning", form="json")
    structlog.get_logger().info("not this")
    logging.getLogger("library").info("nor this")
    structlog.get_logger().warning("but this")

    assert [json.loads(line)["event"] for line in lines(capsys)] == ["but this"]


def test_a_library_that_was_told_to_end_is_not_logged_with_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(form="json")
    for error in (asyncio.CancelledError(), OSError("gone")):
        try:
            raise error
        except (asyncio.CancelledError, OSError):
            logging.getLogger("library").exception("closing failed: %s", type(error).__name__)

    assert [json.loads(line)["event"] for line in lines(capsys)] == ["closing failed: OSError"]


async def test_an_attempt_to_connect_that_is_given_up_is_not_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At some moments asyncpg leaves a future with an error behind, which asyncio tells of."""
    configure_logging(form="json")

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for moment in range(20):
            connecting = asyncio.create_task(
                asyncpg.connect(host="127.0.0.1", port=port, user="ann")
            )
            await turns(moment)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        other = asyncio.get_running_loop().create_future()
        other.set_exception(ConnectionError("another one"))
        await turns(5)
        del connecting, other
        gc.collect()

    events = [json.loads(line) for line in lines(capsys)]
    assert ["another one" in event["exception"] for event in events] == [True]


@given(st.text(max_size=50))
def test_any_text_becomes_printable(text: str) -> None:
    event = _escape_control(None, "info", {"value": text, "number": 1})

    assert event["value"].isprintable()
    assert event["number"] == 1
    if text.isprintable():
        assert event["value"] == text
