"""`python -m dev.fuzz`, or `make fuzz`: search for a message that the codec gets wrong."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dev.benchmarks import machine
from dev.benchmarks.contender import ROOT
from dev.fuzz.target import seeds

NAME = "fuzzing.json"
MOST_BYTES = 4_096
"""Of one input; longer ones are tried elsewhere, and slow the search down."""
SLOW_SECONDS = 10
"""An input that takes longer is a finding."""
TOKENS = Path(__file__).with_name("tokens.dict")
_PROGRESS = re.compile(
    r"#(?P<executions>\d+)\s+[A-Za-z]+\s+"
    r"cov: (?P<edges>\d+) ft: (?P<features>\d+) corp: (?P<corpus>\d+)/"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if an input was found that breaks a rule."""
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print(
            "error: atheris is not installed: it exists for Linux on x86-64 only; run this there, "
            "after make setup",
            file=sys.stderr,
        )
        return 2
    folder: Path = options.folder
    found, corpus = folder / "found", folder / "corpus"
    for path in (found, corpus):
        path.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    code, lines = _run(_arguments(options, corpus, found))
    result = {
        "measured_on": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": options.minutes,
        **_figures(lines),
        "findings": len(list(found.iterdir())),
        "machine": machine.machine(),
        "revision": machine.revisions(None),
    }
    print(json.dumps(result))
    for path in sorted(found.iterdir()):
        print(f"found: {os.path.relpath(path)}", file=sys.stderr)
    if options.publish:
        (ROOT / "docs" / "benchmarks" / NAME).write_text(json.dumps(result) + "\n")
        subprocess.run([sys.executable, "-m", "dev.docs.generate"], cwd=ROOT, check=True)
    return 1 if code or result["findings"] else 0


def _arguments(options: argparse.Namespace, corpus: Path, found: Path) -> Iterable[str]:
    yield f"-max_total_time={round(options.minutes * 60)}"
    yield f"-max_len={MOST_BYTES}"
    yield f"-timeout={SLOW_SECONDS}"
    yield f"-dict={TOKENS}"
    yield f"-artifact_prefix={found}/"
    if options.executions:
        yield f"-runs={options.executions}"
    yield str(corpus)


def _run(arguments: Iterable[str]) -> tuple[int, list[str]]:
    """Run it, let its words through, and keep them."""
    command = [sys.executable, "-m", "dev.fuzz.under_atheris", *arguments]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "NEW " not in line and "REDUCE" not in line:
            sys.stderr.write(line)
    return process.wait(), lines


def _figures(lines: Iterable[str]) -> dict[str, Any]:
    """What libFuzzer counted: of its last line that says so."""
    matches = [match for line in lines if (match := _PROGRESS.match(line))]
    if not matches:
        return {}
    return {name: int(value) for name, value in matches[-1].groupdict().items()}


def figures(document: Mapping[str, Any]) -> str:
    """What docs/fuzzing.md shows of `fuzzing.json`."""
    return (
        f"Run on {document['measured_on'][:10]} for {document['minutes']:g} minutes on one core: "
        f"**{document['executions']:,} executions, {document['edges']:,} edges covered, "
        f"{document['corpus']:,} inputs kept, {document['findings']} findings**.\n"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--executions", type=int, help="at most so many")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".fuzz", help="what is learnt and found (.fuzz)"
    )
    parser.add_argument("--publish", action="store_true", help="also update the docs")
    return parser
