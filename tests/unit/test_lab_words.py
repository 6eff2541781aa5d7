"""What `worker lab` says at the end: words on a terminal, a line of JSON elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.lab_results import make_point, make_result
from worker.cli.lab.conduct import _tell, folder, integers
from worker.cli.terminal import Misused
from worker.lab.analysis import analyse
from worker.lab.results import Result


@pytest.fixture(scope="module")
def found() -> Result:
    points = [make_point(size, rate=100, repeat=n) for size in (2, 4, 8) for n in (0, 1)]
    return analyse(make_result(points))


def test_a_terminal_gets_the_recommendation_in_words(
    found: Result, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    _tell(found, Path("out"))
    told = capfdbinary.readouterr().out.decode()
    assert found.recommendation is not None
    assert f"WORKER_DATABASE__POOL_SIZE={found.recommendation.pool_size}" in told
    assert all(reason in told for reason in found.recommendation.reasons)
    assert "out/report.html" in told


def test_a_program_gets_one_line_of_json(
    found: Result, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    _tell(found, Path("out"))
    told = json.loads(capfdbinary.readouterr().out)
    assert found.recommendation is not None
    assert told["recommendation"]["pool_size"] == found.recommendation.pool_size
    assert told["result"] == "out/result.json"
    assert told["points"] == 6


def test_numbers_in_a_list_are_read_once_each_and_refused_by_name() -> None:
    assert integers("--pool-size", "1, 2,2,8", least=1) == [1, 2, 8]
    for text in ("", "1,,2", "-1", "1.5", "0"):
        with pytest.raises(Misused, match="--pool-size"):
            integers("--pool-size", text, least=1)


def test_a_result_has_a_folder_of_its_own_unless_one_is_named() -> None:
    assert folder(Path("there"), "run", "steady") == Path("there")
    assert str(folder(None, "run", "steady")).startswith("lab-results/run-steady-")
