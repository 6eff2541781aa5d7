"""What the figures were measured on: machine, servers, libraries."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg

from dev.benchmarks.arena import Place
from dev.benchmarks.catalogue import PEERS
from dev.benchmarks.contender import ROOT
from dev.databases import dsn
from worker import __version__

OURS = ("aio-pika", "aiormq", "asyncpg", "pydantic", "sqlalchemy", "uvloop")
THEIRS = ("celery", "dramatiq", "faststream", "psycopg", "taskiq", "taskiq-aio-pika")
DATABASE_SETTINGS = ("server_version", "fsync", "synchronous_commit", "shared_buffers")

_ASK = """
import json, sys
from importlib.metadata import version
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def machine() -> dict[str, Any]:
    """Processor, memory, system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def libraries() -> dict[str, str]:
    """Versions of what takes part; those that are not installed are left out."""
    found = {"worker": __version__}
    for name in OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    asked = [str(PEERS / "python"), "-c", _ASK, *THEIRS]
    try:
        shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return found
    theirs: dict[str, str] = json.loads(shown)
    return found | theirs


def revision() -> str | None:
    """The commit of this checkout, with a `+` if there is more than that."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "worker") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def revisions(before: str | None) -> str | None:
    """The commit of this checkout, after those of what was measured before."""
    known = [*(before or "").split(", "), revision() or ""]
    return ", ".join(dict.fromkeys(filter(None, known))) or None


async def server_versions(place: Place) -> dict[str, Any]:
    """What the two servers say of themselves."""
    async with await aio_pika.connect(place.broker_url) as connection:
        assert connection.transport is not None
        broker = connection.transport.connection.server_properties["version"]
    database = await asyncpg.connect(dsn(place.server_url))
    try:
        settings = {name: await database.fetchval(f"SHOW {name}") for name in DATABASE_SETTINGS}
    finally:
        await database.close()
    return {"rabbitmq": str(broker), "postgresql": settings}


def _git(*arguments: str) -> str:
    asked = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
