"""What users install works: the wheel and the sdist, without extras, outside of any checkout."""

from __future__ import annotations

import asyncio
import json
import re
import zipfile
from pathlib import Path

import pytest

from dev.databases import execute, migrate
from dev.supply.lock import canonical, locked
from tests.e2e.installed import Artefact, Installed, build, install
from tests.support.commandline import CommandLine
from tests.support.harness import Harness
from worker import __version__

READY = '"part": "commands", "event": "ready"'


ARTEFACTS: tuple[Artefact, ...] = ("wheel", "sdist")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[Artefact, Path]:
    """The wheel that is built from the checkout, and that from its sdist."""
    return {artefact: build(artefact, tmp_path_factory.mktemp(artefact)) for artefact in ARTEFACTS}


@pytest.fixture(scope="module", params=("wheel", pytest.param("sdist", marks=pytest.mark.long)))
def installed(
    request: pytest.FixtureRequest,
    wheels: dict[Artefact, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Installed:
    """The worker in an environment of its own."""
    return install(wheels[request.param], tmp_path_factory.mktemp("installed"))


@pytest.fixture
def worker(
    installed: Installed, environment: dict[str, str], empty_database: str, tmp_path: Path
) -> CommandLine:
    """`worker …` as it was installed, in a folder where nothing else is."""
    environment["WORKER_DATABASE__URL"] = empty_database
    return CommandLine(environment, program=(installed.worker,), folder=tmp_path)


only_wheel = pytest.mark.parametrize("installed", ["wheel"], indirect=True, scope="module")
"""For what costs time and follows for the sdist, since the same wheel is built from it."""


def test_the_sdist_builds_the_same_wheel(wheels: dict[Artefact, Path]) -> None:
    assert contents(wheels["sdist"]) == contents(wheels["wheel"])


def test_a_wheel_holds_what_it_needs_and_no_more(wheels: dict[Artefact, Path]) -> None:
    names = contents(wheels["wheel"]).keys()

    assert {"worker/_alembic/env.py", "worker/py.typed"} <= names
    folders = {"worker", f"command_worker-{__version__}.dist-info"}
    assert {name.split("/")[0] for name in names} == folders


def test_nothing_is_there_that_it_does_not_ask_for(installed: Installed) -> None:
    there = {
        canonical(entry.name.split("-")[0]) for entry in installed.packages.glob("*.dist-info")
    }

    assert "scipy" not in there
    assert there - {package.name for package in locked()} == {"command-worker"}


async def test_it_migrates_runs_and_answers(worker: CommandLine, harness: Harness) -> None:
    version, help_, schema, lab, migrated = await asyncio.gather(
        worker("--version"),
        worker("--help"),
        worker("schema", "user.create"),
        worker("lab", "sweep", code=2),
        worker("migrate"),
    )
    assert version.out == f"worker {__version__}\n"
    assert "  migrate " in help_.out
    assert "username" in json.dumps(json.loads(schema.out))
    assert re.search(r"needs the package \w+, which is not installed", lab.err)
    assert "pip install 'command-worker[lab]'" in lab.err
    assert "brought from nothing to 0" in migrated.err

    async with worker.running("run") as current:
        await current.said(READY)
        user = ("username=ann", "email=ann@example.com")
        event = (await worker("publish", "user.create", *user, "--wait")).line
        assert event["type"] == "user.created"
        assert "ahead" not in current.err.decode()


@only_wheel
async def test_it_says_how_far_the_schema_is(worker: CommandLine, harness: Harness) -> None:
    database = worker.environment["WORKER_DATABASE__URL"]
    empty = await worker("run", code=2)
    assert "is empty, this worker needs 0" in empty.err

    await migrate(database, "0001")
    behind = await worker("run", code=2)
    assert "is at 0001, this worker needs 0" in behind.err

    for told in (empty.err, behind.err):
        assert told.rstrip().endswith("worker migrate")
        assert "GRANT" not in told

    await migrate(database)
    await execute(database, "UPDATE alembic_version SET version_num = 'of_tomorrow'")
    async with worker.running("run") as ahead:
        await ahead.said("the schema is ahead of this worker")
        await ahead.said(READY)


@only_wheel
async def test_all_but_the_extras_is_imported_without_their_packages(
    installed: Installed, worker: CommandLine
) -> None:
    look = (
        "import pkgutil, importlib, worker\n"
        "for it in pkgutil.walk_packages(worker.__path__, 'worker.', onerror=print):\n"
        "    if not it.name.startswith(('worker.lab', 'worker.testing')):\n"
        "        importlib.import_module(it.name)\n"
        "        print(it.name)\n"
    )
    imported = await worker.of(installed.python)("-c", look)

    assert {"worker.service.service", "worker.cli.lab.sweep"} <= set(imported.out.splitlines())


def contents(wheel: Path) -> dict[str, int]:
    """Its files and their check sums."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}
