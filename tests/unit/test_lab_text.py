"""What `worker lab` says at the end: words on a terminal, a line of JSON elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.support.lab_results import make_about, make_point, make_result
from worker.cli.lab.common import _code, _tell, folder, integers
from worker.cli.terminal import Misused
from worker.lab.analysis import analyse
from worker.lab.measured import Point
from worker.lab.results import Objective, Result
from worker.lab.text import failed_checks, headline, sections

LAW = "littles-law"


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


def doubtful(point: Point) -> Point:
    pool = point.pool.model_copy(update={"busy_mean": point.pool.busy_mean * 2})
    return point.model_copy(update={"pool": pool})


def test_failed_checks_are_folded_by_kind_and_told_with_their_settings(found: Result) -> None:
    assert found.answer is not None
    others = [point.setting != found.answer for point in found.points]
    points = [
        doubtful(point) if other else point
        for point, other in zip(found.points, others, strict=True)
    ]
    (folded,) = [each for each in failed_checks(analyse(make_result(points))) if each.name == LAW]
    assert folded.tone == "note"
    settings = {str(point.setting) for point, other in zip(points, others, strict=True) if other}
    assert len(settings) >= 2
    assert set(folded.settings) == settings
    assert all(setting in str(folded) for setting in settings)
    assert "), at worst: " in str(folded)


def test_many_settings_are_told_by_the_first_and_their_number() -> None:
    points = [doubtful(make_point(size, rate=100, seconds=5)) for size in (2, 3, 4, 5, 6)]
    (folded,) = [each for each in failed_checks(analyse(make_result(points))) if each.name == LAW]
    assert folded.tone == "bad"
    assert folded.where == "pool 2+0, 100/s; pool 3+0, 100/s; pool 4+0, 100/s; and 2 more"


def test_a_probe_that_failed_is_not_told_as_the_load_that_was_asked_for(found: Result) -> None:
    probes = [doubtful(make_point(size, clients=3 * size, seconds=5)) for size in (2, 4)]
    own = [doubtful(point) for point in found.points[:2]]
    result = analyse(make_result([*own, *found.points[2:], *probes]))
    law = [each.settings for each in failed_checks(result) if each.name == LAW]
    assert len(law) == 2
    assert ("pool 2+0, kept full", "pool 4+0, kept full") in law


def test_of_one_run_every_failed_check_is_red() -> None:
    result = analyse(make_result([doubtful(make_point(8, rate=200))], kind="run"))
    assert [each.tone for each in failed_checks(result)] == ["bad"]
    assert not headline(result).good


def test_the_exit_code_says_whether_there_is_an_answer(found: Result) -> None:
    alone = [make_point(4, rate=100, seconds=2)]
    assert _code(found) == 0
    assert _code(analyse(make_result(alone))) == 3
    assert _code(analyse(make_result(alone, kind="run"))) == 0
    assert _code(analyse(make_result(alone, partial=True))) == 130
    assert _code(analyse(make_result(alone, kind="capacity"))) == 3
    assert _code(analyse(make_result(alone, kind="capacity", capacity_per_second=100))) == 0


def test_a_capacity_is_told_with_what_was_asked_for() -> None:
    points = [make_point(4, rate=rate, seconds=2) for rate in (100, 150)]
    asked = make_about(objective=Objective(wait_p99_seconds=0.05, latency_p99_seconds=0.05))
    result = make_result(points, kind="capacity", about=asked, capacity_per_second=100)
    good, words = headline(analyse(result))
    assert good
    assert words == (
        "This pool keeps the objective (latency p99 50 ms) up to 100 arrivals a second."
    )
    none = headline(analyse(make_result(points, kind="capacity")))
    assert not none.good
    assert "(wait p99 20 ms) at any rate that was tried, down to 100 arrivals" in none.words
    # The rate that was found is the answer; the others led to it.
    (_, own), (_, probes) = sections(result)
    assert [each.setting.rate_per_second for each in own] == [100]
    assert [each.setting.rate_per_second for each in probes] == [150]


def test_numbers_in_a_list_are_read_once_each_and_refused_by_name() -> None:
    assert integers("--pool-size", "1, 2,2,8", least=1) == [1, 2, 8]
    for text in ("", "1,,2", "-1", "1.5", "0"):
        with pytest.raises(Misused, match="--pool-size"):
            integers("--pool-size", text, least=1)


def test_a_result_has_a_folder_of_its_own_unless_one_is_named() -> None:
    assert folder(Path("there"), "run", "steady") == Path("there")
    assert str(folder(None, "run", "steady")).startswith("lab-results/run-steady-")
