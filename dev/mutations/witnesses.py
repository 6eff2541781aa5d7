"""Has tests of a copy run, and reads what they found."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RUN_TIMEOUT_SECONDS = 600
TEST_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Verdict:
    """What became of the tests: `failed` by an assertion or a fault of the code that they call."""

    passed: frozenset[str]
    failed: frozenset[str]
    broken: frozenset[str]
    """Could not be collected, or set up: says nothing about the code."""
    output: str
    seconds: float

    @property
    def last_words(self) -> str:
        """The end of what pytest said."""
        return "\n".join(self.output.strip().splitlines()[-40:])


def run(root: Path, tests: Sequence[str]) -> Verdict:
    """Run these tests, by pytest's ids without `tests/`, against the copy in `root`."""
    began = time.monotonic()
    report = root / "report.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"),
        *(f"--timeout={TEST_TIMEOUT_SECONDS}", f"--junit-xml={report}", "--tb=short"),
        *(f"tests/{test}" for test in tests),
    ]
    # In its folder and with no path from outside, so that `worker` is the copy's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["WORKER_TESTS_HURRY"] = "1"
    try:
        ended = subprocess.run(
            command,
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_TIMEOUT_SECONDS,
            check=False,
        )
        output = ended.stdout
    except subprocess.TimeoutExpired as error:
        output = f"no end within {error.timeout} s"
    found = _read(report) if report.exists() else {}
    return Verdict(
        passed=_of(tests, found, "passed"),
        failed=_of(tests, found, "failed"),
        broken=_of(tests, found, "broken"),
        output=output,
        seconds=time.monotonic() - began,
    )


def _read(report: Path) -> dict[str, str]:
    """How each test ended, by its id; of a parametrised test the worst end counts."""
    ends: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):
        file = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        id_ = f"{file}.py::{case.get('name', '')}"
        end = "passed"
        if case.find("failure") is not None:
            end = "failed"
        elif case.find("error") is not None or case.find("skipped") is not None:
            end = "broken"
        for name in (id_, id_.partition("[")[0]):
            ends[name] = max(ends.get(name, "passed"), end, key=_SEVERITY.index)
    return ends


_SEVERITY = ("passed", "broken", "failed")


def _of(tests: Sequence[str], found: dict[str, str], end: str) -> frozenset[str]:
    return frozenset(test for test in tests if found.get(test, "broken") == end)
