"""`worker lab` as a process: what it writes, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.commandline import CommandLine, Running
from tests.support.harness import eventually
from tests.support.lab import rows
from worker.lab.results import load_result
from worker.lab.sandbox import _COMMENT
from worker.lab.scenario_files import load_scenario, shipped

SHORT = ["--seconds", "0.8", "--warm-up", "0.3"]
ENDLESS = ["lab", "sweep", "--pool-size", "2,3", "--overflow", "0", "--repeats", "99", *SHORT]


async def leftovers(url: str) -> list[str]:
    """Whatever a lab has on the server: its database, its sessions."""
    query = (
        "SELECT datname::text FROM pg_database"
        " WHERE shobj_description(oid, 'pg_database') = $1 || current_database() UNION ALL"
        " SELECT application_name FROM pg_stat_activity"
        " WHERE application_name LIKE 'worker_lab%' AND datname = current_database()"
    )
    return [name for (name,) in await rows(url, query, _COMMENT)]


def children(running: Running) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(running.process.pid).children(recursive=True)
    return found


def all_stand_apart(running: Running) -> bool:
    """Whether there are children, and each has a session of its own; one just born has none yet."""
    sessions = [os.getsid(child.pid) for child in children(running)]
    return bool(sessions) and os.getsid(running.process.pid) not in sessions


@pytest.mark.long
async def test_a_sweep_tells_each_point_and_writes_its_files(
    cli: CommandLine, database: str, tmp_path: Path
) -> None:
    sweep = ["lab", "sweep", "--pool-size", "1,2", "--overflow", "0", "--repeats", "1", *SHORT]
    async with cli.running(*sweep, "--seed", "5", "--out", str(tmp_path)) as running:
        result = await running.end()
    *points, last = result.lines
    assert result.code == (0 if last["recommendation"] else 3)
    assert {(point["pool_size"], point["load"]) for point in points} >= {
        (1, "open"),
        (2, "open"),
        (1, "closed"),
        (2, "closed"),
    }
    assert all(point["throughput_per_second"] > 0 for point in points)
    assert "pool 2+0, 150/s: " in result.err
    assert last["result"] == str(tmp_path / "result.json")
    assert last["partial"] is False
    assert last["recommendation"] or last["no_recommendation_because"]

    found = load_result(tmp_path)
    assert found.kind == "sweep"
    assert found.about.seed == 5
    assert len(found.points) == len(points) == last["points"]
    assert [point.order for point in found.points] == list(range(len(points)))
    assert found.about.versions["postgresql"]
    # Neither addresses nor passwords are anybody's business.
    assert "://" not in json.dumps(found.about.settings)
    assert (tmp_path / "report.html").exists()
    assert not await leftovers(database)


@pytest.mark.long
async def test_ctrl_c_keeps_a_valid_part_and_leaves_nothing(
    cli: CommandLine, database: str, tmp_path: Path
) -> None:
    async with cli.running(*ENDLESS, "--out", str(tmp_path)) as running:
        await running.printed(2)
        # A terminal sends it to its whole group: not to the children, which are in another.
        await eventually(lambda: all_stand_apart(running))
        processes = children(running)
        result = await running.end(by=signal.SIGINT)
    assert result.code == 130
    assert "stopping" in result.err
    assert "Traceback" not in result.err
    found = load_result(tmp_path)
    assert found.partial
    assert len(found.points) >= 2
    assert found.no_recommendation_because
    assert (tmp_path / "report.html").exists()
    assert result.lines[-1]["partial"] is True
    assert not any(process.is_running() for process in processes)
    assert not await leftovers(database)


@pytest.mark.long
async def test_a_second_ctrl_c_stops_at_once_and_leaves_nothing_either(
    cli: CommandLine, database: str, tmp_path: Path
) -> None:
    async with cli.running(*ENDLESS, "--out", str(tmp_path)) as running:
        await running.printed(1)
        processes = await eventually(lambda: children(running))
        running.process.send_signal(signal.SIGINT)
        await running.said("stopping")
        result = await running.end(by=signal.SIGINT)
    assert result.code == 130
    assert "Traceback" not in result.err
    assert not any(process.is_running() for process in processes)
    assert load_result(tmp_path).partial  # what the first point had written
    assert not await leftovers(database)


@pytest.mark.long
async def test_after_kill_9_the_children_end_and_the_next_run_clears_up(
    cli: CommandLine, database: str, tmp_path: Path
) -> None:
    async with cli.running(*ENDLESS, "--out", str(tmp_path / "killed")) as running:
        await running.printed(1)
        processes = await eventually(lambda: children(running))
        running.process.kill()
        await eventually(lambda: not any(process.is_running() for process in processes))
    assert load_result(tmp_path / "killed").partial
    assert len(await leftovers(database)) == 1

    run = ["lab", "run", "steady", "--set", "load.measure_seconds=0.5"]
    await cli(*run, "--set", "load.warm_up_seconds=0", "--out", str(tmp_path / "next"))
    assert load_result(tmp_path / "next").points
    assert not await leftovers(database)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("run stady", "there is no scenario 'stady'. Known: bimodal"),
        ("run steady --set pool.pol_size=1", "pool.pol_size: there is no such key"),
        ("run steady --set load.rate_per_second=-5", "load.rate_per_second=-5"),
        ("run steady --set pool.pool_size=5000", "pool.pool_size=5000"),
        ("sweep --pool-size 2,5000", "pool.pool_size=5000"),
        ("sweep --pool-size 1,x", "--pool-size 1,x: x is no whole number"),
        ("sweep --pool-size 0", "--pool-size 0"),
        ("sweep --p99-wait soon", "--p99-wait soon"),
        ("capacity", "name the objective: --p99 50ms"),
        ("capacity spike --p99 50ms", "spike has no steady rate"),
        ("scenarios stady", "there is no scenario 'stady'"),
    ],
)
async def test_what_cannot_be_run_is_refused_by_name_before_anything_is_done(
    cli: CommandLine, database: str, arguments: str, words: str
) -> None:
    result = await cli("lab", *arguments.split(), code=2)
    assert words in result.err
    assert result.err.startswith("error: ")
    assert result.out == ""
    assert not await leftovers(database)


async def test_a_database_that_is_away_is_told(cli: CommandLine) -> None:
    away = {"WORKER_DATABASE__URL": "postgresql+asyncpg://ann:secret@127.0.0.1:1/none"}
    result = await cli("lab", "run", "steady", code=4, **away)
    assert result.err.startswith("error: PostgreSQL cannot be reached")
    assert "secret" not in result.err


async def test_scenarios_are_listed_and_printed_to_be_changed(
    bare: CommandLine, tmp_path: Path
) -> None:
    listed = await bare("lab", "scenarios")
    assert [line.split()[0] for line in listed.out.splitlines()] == sorted(shipped())
    as_json = await bare("lab", "scenarios", "--json")
    assert {line["name"] for line in as_json.lines} == set(shipped())
    printed = await bare("lab", "scenarios", "spike")
    file = tmp_path / "mine.toml"
    file.write_text(printed.out)
    assert load_scenario(str(file)) == load_scenario("spike")
