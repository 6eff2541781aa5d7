"""Whoever writes an entity of their own gets types from the installed wheel: `make typed`.

Takes a minute of CPU and Node.js in a package, so `make test` alone leaves it out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.installed import Installed, build, install

ENTITIES = Path(__file__).parents[2] / "docs" / "entities.md"
PYRIGHT = os.environ.get("WORKER_PYRIGHT", "")

pytestmark = [
    pytest.mark.skipif(not PYRIGHT, reason="`make typed` installs pyright, and names it"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The worker from its wheel, without extras."""
    return install(
        build("wheel", tmp_path_factory.mktemp("wheel")), tmp_path_factory.mktemp("venv")
    )


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The entity of the page, in a folder that holds nothing else."""
    (code,) = re.findall(r"```python\n(.*?)```", ENTITIES.read_text(), re.DOTALL)
    file = tmp_path / "entities.py"
    file.write_text(code)
    return file


def misuse(example: Path) -> None:
    """Add a line that is wrong only for who knows the types of the worker."""
    example.write_text(example.read_text() + "\nPRODUCT.columns.append('x')\n")


def mypy(installed: Installed, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file="),
            *("--python-executable", installed.python, str(file)),
        ],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def pyright(installed: Installed, file: Path) -> list[str]:
    """What it says of the file, in its mode `strict`, as editors do."""
    settings = file.parent / "pyrightconfig.json"
    # What is basedpyright's own is left out: `strict` is pyright's.
    settings.write_text(json.dumps({"include": [file.name], "typeCheckingMode": "strict"}))
    done = subprocess.run(
        [PYRIGHT, "--outputjson", "--pythonpath", installed.python, "--project", str(settings)],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [f"{each['severity']}: {each['message']} ({each.get('rule')})" for each in found]


def test_mypy_strict_accepts_the_example_and_no_misuse(installed: Installed, example: Path) -> None:
    accepted = mypy(installed, example)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    misuse(example)
    refused = mypy(installed, example)
    assert '"tuple[str, ...]" has no attribute "append"' in refused.stdout


def test_pyright_accepts_the_example_and_no_misuse(installed: Installed, example: Path) -> None:
    assert pyright(installed, example) == []
    misuse(example)
    assert any('"append"' in line for line in pyright(installed, example))
