"""Known vulnerabilities of the locked packages, as uv finds them with the service that it asks."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.supply.lock import Package

SECONDS = 120
UNREACHABLE = ("error sending request", "Request failed", "Could not connect", "timed out")


@dataclass(frozen=True)
class Finding:
    """What the audit came to."""

    code: int
    """0 where nothing is known against the packages, or nobody could be asked; else 1."""
    words: str


def audit(packages: Sequence[Package], *, uv: str | None = None) -> Finding:
    """Ask, and say plainly where there was nobody to ask."""
    with tempfile.TemporaryDirectory(prefix="worker-audit-") as folder:
        # A script with exactly these packages: uv audits its own lock files only.
        script = Path(folder) / "pinned.py"
        script.write_text(_script(packages), encoding="utf-8")
        program = uv or str(Path(sys.executable).with_name("uv"))
        command = [program, "audit", "--preview-features", "audit-command", "--script", str(script)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return _not_asked(packages, f"no answer in {SECONDS} s")
    said = (done.stdout + done.stderr).strip()
    if done.returncode == 0:
        return Finding(0, f"{len(packages)} packages audited: {said.splitlines()[-1]}")
    reason = next((line for line in said.splitlines() if any(w in line for w in UNREACHABLE)), None)
    if reason is not None:
        # Which one it asks is uv's affair, and no business of a log.
        return _not_asked(packages, "the service that knows them cannot be reached from here")
    return Finding(1, said)


def _not_asked(packages: Sequence[Package], why: str) -> Finding:
    return Finding(0, f"NOT AUDITED: {len(packages)} packages, and {why}")


def _script(packages: Sequence[Package]) -> str:
    pins = (
        f"{it.name}=={it.version}" + (f" ; {it.marker}" if it.marker else "") for it in packages
    )
    lines = ["# /// script", '# requires-python = ">=3.11"', "# dependencies = ["]
    lines += [f"#   {json.dumps(pin)}," for pin in pins]
    return "\n".join([*lines, "# ]", "# ///", ""])
