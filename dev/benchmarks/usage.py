"""CPU time of contender, broker and database, from Linux's /proc; `None` where it cannot be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PROC = Path("/proc")
_LISTENING = "0A"


@dataclass(frozen=True)
class _Stat:
    """The fields of /proc/<pid>/stat that matter here."""

    pid: int
    parent: int
    session: int
    ticks: int
    """CPU time of the process and of its children that have ended."""


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far, user and system, children included."""

    contender: float | None
    broker: float | None
    database: float | None

    def since(self, before: Usage) -> Usage:
        """What was used in between."""
        return Usage(
            _less(self.contender, before.contender),
            _less(self.broker, before.broker),
            _less(self.database, before.database),
        )

    def per(self, commands: int) -> Usage:
        """The same for one command, in microseconds."""
        return Usage(
            *(
                None if value is None else value / commands * 1e6
                for value in (self.contender, self.broker, self.database)
            )
        )


class Meter:
    """Reads the CPU time of three process trees."""

    def __init__(self, broker_url: str, database_url: str) -> None:
        self._broker = listener(broker_url, 5672)
        self._database = listener(database_url, 5432)

    def read(self, session: int | None = None) -> Usage:
        """Now; `session` is the contender's, all of whose processes count, if it has one."""
        stats = list(_stats())
        hertz = os.sysconf("SC_CLK_TCK")

        def seconds(pids: set[int]) -> float | None:
            found = [stat.ticks for stat in stats if stat.pid in pids]
            return sum(found) / hertz if found else None

        return Usage(
            seconds({stat.pid for stat in stats if stat.session == session}),
            seconds(_tree(stats, self._broker)),
            seconds(_tree(stats, self._database)),
        )


def peak_bytes(session: int) -> int | None:
    """The most resident memory of the session's processes, each at its own highest, summed."""
    total = 0
    for stat in _stats():
        if stat.session == session:
            try:
                lines = (PROC / str(stat.pid) / "status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) * 1024 for line in lines if line[:6] == "VmHWM:")
    return total or None


def listener(url: str, default_port: int) -> int | None:
    """The process on this machine that listens on the port of the address, if we may see it."""
    parts = urlsplit(url)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        return None
    sockets = _listening(parts.port or default_port)
    for pid in _pids():
        try:
            held = {os.readlink(path) for path in (PROC / str(pid) / "fd").iterdir()}
        except OSError:  # it has ended, or is somebody else's
            continue
        if held & sockets:
            return pid
    return None


def _listening(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rsplit(":", 1)[1], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _pids() -> list[int]:
    """Ascending, so that a server comes before the children that have inherited its socket."""
    try:
        return sorted(int(entry) for entry in os.listdir(PROC) if entry.isdigit())
    except OSError:  # no /proc, so not Linux
        return []


def _stats() -> Iterator[_Stat]:
    for pid in _pids():
        try:
            # The name of the program may hold anything, even a parenthesis.
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks = sum(int(field) for field in fields[11:15])
        yield _Stat(pid, int(fields[1]), int(fields[3]), ticks)


def _tree(stats: list[_Stat], root: int | None) -> set[int]:
    if root is None:
        return set()
    found, grown = {root}, True
    while grown:
        more = {stat.pid for stat in stats if stat.parent in found} - found
        found |= more
        grown = bool(more)
    return found


def _less(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before
