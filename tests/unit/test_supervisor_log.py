"""The parent's log lines look like a worker's; its plan survives the command line."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from worker.service.supervisor.log import Log, tell
from worker.service.supervisor.plan import Plan, python_module
from worker.telemetry.logging import configure_logging

TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


def test_a_line_has_the_form_of_a_workers(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"process": 1, "reason": 'a "quoted"\r\n\x1b[31m word, ümlaut'}
    configure_logging(level="info", form="json")
    structlog.get_logger("worker.service.supervisor").warning("process ended", **values)
    Log(level="info", as_json=True).warning("process ended", **values)
    theirs, ours = (json.loads(line) for line in capsys.readouterr().err.splitlines())

    assert list(ours) == list(theirs)
    assert len(ours.pop("timestamp")) == len(theirs.pop("timestamp"))
    assert ours == theirs


@pytest.mark.parametrize("level", ["info", "warning"])
@pytest.mark.parametrize(("terminal", "no_color"), [(False, ""), (True, ""), (True, "1")])
def test_in_words_it_is_a_workers_to_the_letter_in_colour_too(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    level: str,
    terminal: bool,
    no_color: str,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    values = {
        "url": "http://x/",
        "reason": 'a "b"\r\n\x1b[31m=',
        "number": 0.5,
        "none": None,
        "e": "",
    }
    configure_logging(level="info", form="console")
    getattr(structlog.get_logger("worker.service.supervisor"), level)("process ended", **values)
    getattr(Log(level="info", as_json=False), level)("process ended", **values)
    theirs, ours = capsys.readouterr().err.splitlines()

    assert TIME.sub("", ours) == TIME.sub("", theirs)
    assert len(ours) == len(theirs)
    assert ("\x1b[" in ours) is (terminal and not no_color)


def test_less_than_the_least_level_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(level="warning", as_json=False)
    log.info("nothing of note")
    log.warning("process ended", process=1, reason="\x1b[31m red")

    (line,) = capsys.readouterr().err.splitlines()
    assert "[warning  ] process ended" in line
    assert "process=1 reason='\\\\x1b[31m red'" in line


class Closed(io.StringIO):
    def flush(self) -> None:
        raise BrokenPipeError


def test_nobody_need_be_listening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Closed())
    tell("still here")


def test_a_plan_survives_the_command_line() -> None:
    plan = Plan(
        processes=3,
        health_host="::1",
        health_port=0,
        shutdown_seconds=0.5,
        log_level="info",
        log_as_json=True,
    )
    assert Plan.from_argument(plan.as_argument()) == plan


@pytest.mark.parametrize("in_path", [True, False])
def test_a_child_finds_modules_where_its_parent_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_path: bool
) -> None:
    (tmp_path / "beside.py").write_text("print('found')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path)] * in_path + ["/somewhere/else"])
    result = subprocess.run(python_module("beside"), capture_output=True, check=False)
    assert (result.stdout == b"found\n") is in_path
