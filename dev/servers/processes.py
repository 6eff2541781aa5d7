"""Processes: who they are, whose children, and how to hold or end all of them.

Process groups are no help here: PostgreSQL gives every backend a group of its own, and Erlang
does so for every helper. What holds a server together is the line from child to parent.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.servers.accounts import Account
from dev.servers.errors import ServerError

_PROC = Path("/proc")
# Kept until they end, even if their server outlives this process and nobody else keeps them.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Process:
    """One row of the process table."""

    pid: int
    parent: int
    state: str
    command: str

    @property
    def program(self) -> str:
        """The name of the program alone."""
        return self.command.partition(" ")[0].rpartition("/")[2]

    @property
    def alive(self) -> bool:
        """A zombie is only a row that its parent has not read yet."""
        return self.state not in {"Z", "X"}

    def has(self, words: str) -> bool:
        """Whether the command line holds these arguments, whole ones."""
        return f" {words} " in f" {self.command} "


def table() -> dict[int, Process]:
    """All live processes by pid."""
    if (_PROC / "self" / "stat").exists():
        numbers = (int(name) for name in os.listdir(_PROC) if name.isdigit())
        found = (_from_proc(pid) for pid in numbers)
        return {process.pid: process for process in found if process and process.alive}
    return {process.pid: process for process in _from_ps() if process.alive}


def _from_proc(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
        command = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None  # it ended between the listing and the reading
    # The second field is a name in parentheses that may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    words = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    # The first thread of a killed process is a zombie while others still hold its sockets.
    state = "R" if fields[0] == "Z" and int(fields[17]) > 1 else fields[0]
    return Process(pid, int(fields[1]), state, words)


def _from_ps() -> Iterable[Process]:
    """The same where there is no /proc, as on macOS."""
    argv = ["ps", "-A", "-ww", "-o", "pid=,ppid=,state=,command="]
    listing = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        pid, parent, state, command = [*line.split(None, 3), ""][:4]
        yield Process(int(pid), int(parent), state[0], command)


def anywhere(path: Path) -> bool:
    """Whether any process names this path in its command line."""
    return any(str(path) in process.command for process in table().values())


def with_descendants(roots: Iterable[int], rows: Mapping[int, Process]) -> list[int]:
    """The roots and all their children's children, parents first."""
    children: dict[int, list[int]] = {}
    for row in rows.values():
        children.setdefault(row.parent, []).append(row.pid)
    found: dict[int, None] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop(0)
        if pid not in found:
            found[pid] = None
            waiting += children.get(pid, [])
    return list(found)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def freeze(find: Callable[[], Sequence[int]]) -> set[int]:
    """Stop all that `find` finds, and look again: one may have forked just before it stopped."""
    stopped: set[int] = set()
    while fresh := [pid for pid in find() if pid not in stopped]:
        send(fresh, signal.SIGSTOP)
        stopped.update(fresh)
    return stopped


def end(find: Callable[[], Sequence[int]], *, within: float = 10.0) -> None:
    """Kill all that `find` finds and return when they are gone, their sockets with them."""
    # Frozen first, so that none of them can start another while its brothers are being killed.
    doomed = freeze(find)
    send(doomed, signal.SIGKILL)
    if not until(lambda: not doomed & table().keys(), within=within):
        raise ServerError(f"Processes {sorted(doomed & table().keys())} outlived SIGKILL.")


def until(condition: Callable[[], bool], *, within: float, every: float = 0.02) -> bool:
    """Whether the condition came true before the time was up."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def spawn(
    argv: Sequence[str],
    *,
    account: Account | None,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
) -> subprocess.Popen[bytes]:
    """Start a server: away from our terminal and its Ctrl-C, output into the log."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    _children[child.pid] = child
    return child


def reap() -> None:
    """Read the ends of our children, which would else stay in the process table as zombies."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def living_child(pid: int) -> bool:
    """Whether this is a process that we have spawned and that has not ended."""
    reap()
    return pid in _children


def run(
    argv: Sequence[str],
    *,
    account: Account | None,
    environment: Mapping[str, str],
    directory: Path,
    stdin: str = "",
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a helper of a server to its end, as the server's account; the output is one text."""
    return subprocess.run(
        argv,
        cwd=directory,
        env=dict(environment),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def clean_environment(home: Path) -> dict[str, str]:
    """Little of ours: a stray PGDATA, RABBITMQ_… or ERL_… must not steer a private server."""
    path = os.environ.get("PATH", "")
    return {"PATH": f"{path}:/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
