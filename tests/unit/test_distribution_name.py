"""The distribution is `command-worker`: `worker` on PyPI belongs to somebody else.

Who follows a line that installs `worker` runs a stranger's code, so no text may hold one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

NAME = r"(?<![\w./@-])worker(?![\w./@-])"
EXTRA = "|".join(PROJECT["optional-dependencies"])
STRANGER = re.compile(
    rf"""
      \b(?:pip3?|pipx|uv|poetry|pdm)\b[^\n`&;|]*\b(?:install|add|download|wheel)\b
        [^\n`&;|\#]*?[ \t'"]{NAME}
    | \b(?:uvx|pipx\srun)\s{NAME}
    | {NAME}\[(?:{EXTRA})\b
    | {NAME}\s*(?:[=~><!]=|@\s*(?:git|https?|file))
    | \b(?:version|distribution|metadata|requires|files)\(\s*["']{NAME}["']
    | pypi(?:\.org/project)?/worker\b
    """,
    re.VERBOSE,
)


def texts() -> Iterator[tuple[str, str]]:
    """Every tracked file that is text, by its path."""
    listing = shutil.which("git") and subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if not listing or listing.returncode:
        pytest.skip("no git checkout, so it is not known which files belong to the project")
    for path in filter(None, listing.stdout.split("\0")):
        try:
            yield path, (ROOT / path).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue


def test_no_text_installs_or_looks_up_the_strangers_package() -> None:
    found = [
        f"{path}: {match.group().strip()}"
        for path, text in texts()
        for match in STRANGER.finditer(text)
    ]

    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install {}",
        "pip install '{}[lab]'",
        "python -m pip install --upgrade {}",
        "uv add {}",
        "pipx install {}",
        "uvx {} --help",
        "uv pip install '{}>=1'",
        "Install the extra: {}[testing]",
        "{}==0.1.0",
        "{} @ git+https://example.org/x.git",
        "importlib.metadata.version('{}')",
        "pkg:pypi/{}@0.1.0",
        "https://pypi.org/project/{}",
    ],
)
def test_such_a_line_would_be_found(line: str) -> None:
    assert STRANGER.search(line.format("worker"))
    assert not STRANGER.search(line.format("command-worker"))


@pytest.mark.parametrize(
    "line",
    [
        "pip install ./dist/command_worker-0.1.0.whl && worker migrate",
        "worker lab gate --max-wait 20ms",
        "from worker import __version__",
        "ENTRYPOINT ['worker']",
    ],
)
def test_the_command_and_the_import_keep_their_name(line: str) -> None:
    assert not STRANGER.search(line)
