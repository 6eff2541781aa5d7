"""Scenarios are data: each that is shipped loads, and what is wrong with one is said by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.lab.scenario import BadScenario
from worker.lab.scenario_files import load_scenario, shipped

MINIMAL = """
name = "mine"
sentence = "One query."
[[step]]
kind = "query"
seconds = 0.01
"""


def test_the_scenarios_that_were_promised_are_shipped() -> None:
    assert set(shipped()) == {
        "bimodal",
        "cold-start",
        "leak",
        "lock-contention",
        "pgbouncer",
        "ramp",
        "read-heavy",
        "restart",
        "slow-commit",
        "spike",
        "steady",
    }


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_scenario_loads_under_its_own_name(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.sentence.endswith((".", ")"))


def test_a_scenario_of_ones_own_needs_a_name_a_sentence_and_a_step(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(MINIMAL)
    scenario = load_scenario(str(file))
    assert scenario.load.kind == "open"
    assert scenario.pool.pool_size == 10

    file.write_text('name = "mine"')
    with pytest.raises(BadScenario, match="sentence: Field required; step: Field required"):
        load_scenario(str(file))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("load.rate_per_second=-3", r"load\.rate_per_second=-3: Input should be greater than 0"),
        ("load.rate_per_second=nan", r"load\.rate_per_second"),
        ("load.rate_per_second=inf", r"load\.rate_per_second"),
        ("load.ramp_to_per_second=-1", r"load\.ramp_to_per_second=-1"),
        ("load.kind=clsoed", r"load\.kind='clsoed'"),
        ("load.measure_seconds=0", r"load\.measure_seconds=0"),
        ("pool.pol_size=3", r"pool\.pol_size: there is no such key"),
        ("pool.pool_size=0", r"pool\.pool_size=0"),
        ("pool.pool_size=two", r"pool\.pool_size='two'"),
        ("pool.max_overflow=-1", r"pool\.max_overflow=-1"),
        ("work.group_size=8", r"group_size > 1 needs lanes"),
        ("step.1.secnds=1", r"step\.1\.secnds: there is no such key"),
        ("step.1.seconds=-1", r"step\.1\.seconds=-1"),
        ("step.1.distribution=zipf", r"step\.1\.distribution='zipf'"),
        ("step.1.kind=querry", "querry"),
        ("step.9.seconds=1", "9 is none of the places 0 to 2"),
        ("step.x.seconds=1", "x is none of the places 0 to 2"),
        ("name.first=1", "name holds no further keys"),
        ("colour=blue", "colour: there is no such key"),
        ("pool", "not of the form key=value"),
        ("=3", "not of the form key=value"),
        ("pool.=3", "not of the form key=value"),
        ("restart.at_seconds=99", "behind the end"),
    ],
)
def test_a_wrong_change_is_refused_by_name(change: str, words: str) -> None:
    with pytest.raises(BadScenario, match=words):
        load_scenario("steady", [change])


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadScenario) as told:
        load_scenario("steady", ["pool.pool_size=0", "load.rate_per_second=0", "x=1"])
    assert all(name in str(told.value) for name in ("pool.pool_size", "load.rate_per_second", "x:"))
    assert told.value.exit_code == 2


def test_changes_are_values_as_toml_has_them() -> None:
    changes = ["pool.pool_size=3", "load.kind=closed", "load.clients = 7", "step.1.seconds=0.5"]
    scenario = load_scenario("steady", [change.replace(" ", "") for change in changes])
    assert scenario.pool.pool_size == 3
    assert scenario.load.kind == "closed"
    assert scenario.load.clients == 7
    assert scenario.load.mean_rate_per_second is None
    assert scenario.step[1].model_dump()["seconds"] == 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("steadyy", "there is no scenario 'steadyy'. Known: bimodal, "),
        ("/no/such/file.toml", "cannot be read: No such file"),
    ],
)
def test_an_unknown_scenario_is_told_with_those_that_there_are(name: str, words: str) -> None:
    with pytest.raises(BadScenario, match=words):
        load_scenario(name)


def test_a_file_that_is_no_toml_is_told(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(b"name = \xff")
    with pytest.raises(BadScenario, match="is no TOML"):
        load_scenario(str(file))
    file.write_text("name = ")
    with pytest.raises(BadScenario, match="is no TOML"):
        load_scenario(str(file))


def test_a_leak_and_lanes_exclude_each_other() -> None:
    with pytest.raises(BadScenario, match="a leak needs work without lanes"):
        load_scenario("leak", ["work.lanes=2"])


def test_a_changed_scenario_is_checked_again() -> None:
    scenario = load_scenario("steady")
    changed = scenario.changed(pool={"pool_size": 2}, load={"rate_per_second": 40})
    assert (changed.pool.pool_size, changed.pool.max_overflow) == (2, scenario.pool.max_overflow)
    assert changed.step == scenario.step
    with pytest.raises(BadScenario, match=r"pool\.pool_size=0"):
        scenario.changed(pool={"pool_size": 0})
