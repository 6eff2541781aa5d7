"""Ajv, the validator of most JavaScript programs, takes the schemas and agrees with the worker."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.fakes import REGISTRY, delivery, make_codec
from tests.unit.commands import commands
from worker.codec.schemas import schema_of, schema_of_all
from worker.core.messages import Command, Rejected

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

AJV = "ajv@8"
PROGRAM = """
const Ajv = require("ajv/dist/2020").default;
const { schemas, commands } = JSON.parse(require("fs").readFileSync(process.argv[2]));
const validators = schemas.map((schema) => new Ajv({ strict: true }).compile(schema));
console.log(JSON.stringify(commands.map((command) => validators.map((fits) => fits(command)))));
"""


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, cwd=directory, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program beside the Ajv that it needs."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs node and npm")
    directory = tmp_path_factory.mktemp("ajv")
    install = [npm, "install", "--no-audit", "--no-fund", "--no-save", AJV]
    done = run(install, directory)
    if done.returncode:
        pytest.skip(f"npm cannot install {AJV}: {done.stderr.strip().splitlines()[-1:]}")
    program = directory / "judge.js"
    program.write_text(PROGRAM)
    return program


def generated() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    @settings(
        max_examples=2_000,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(commands(huge=False))
    def collect(command: dict[str, Any]) -> None:
        found.append(command)

    collect()
    return found


def test_strict_mode_compiles_them_and_agrees_with_the_worker(program: Path) -> None:
    schemas = [schema_of_all(REGISTRY), *(schema_of(REGISTRY, it) for it in REGISTRY.types)]
    codec, judged = make_codec(), []
    for command in generated():
        item = codec.decode(delivery(json.dumps(command)))
        problem = item.problem if isinstance(item, Rejected) else None
        if problem is None or not all("e-mail address" in it.detail for it in problem.errors):
            judged.append((command, isinstance(item, Command)))
    asked = program.with_name("asked.json")
    asked.write_text(json.dumps({"schemas": schemas, "commands": [each for each, _ in judged]}))
    done = run(["node", program.name, asked.name], program.parent)

    assert not done.returncode, done.stderr
    assert not done.stderr, "strict mode has something to say"
    for (command, taken), verdicts in zip(judged, json.loads(done.stdout), strict=True):
        expected = [taken, *(taken and command["type"] == type_ for type_ in REGISTRY.types)]
        assert verdicts == expected, command
    assert 200 < sum(taken for _, taken in judged) < len(judged) - 200
