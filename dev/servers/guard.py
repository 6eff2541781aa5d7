"""Servers of a fault test must not outlive the test run, however the run ends.

A small process waits for the end of the one that started the server and then kills the server.
Linux could signal the server at its parent's death (PR_SET_PDEATHSIG), but means by that the
death of the *thread*, and tests start servers from threads of a pool.
"""

import subprocess
import sys
from pathlib import Path
from typing import Protocol, Self

_REPOSITORY = Path(__file__).resolve().parents[2]


class Guarded(Protocol):
    """A server that is known by the folder of its state."""

    @classmethod
    def attach(cls, directory: Path) -> Self: ...
    def kill(self) -> None: ...


class Guard:
    """Holds one end of a pipe; when this process dies, for whatever reason, the pipe closes."""

    def __init__(self, server: type[Guarded], directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, server.__module__, server.__name__, str(directory)],
            cwd=_REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C must not end the guard before its work
        )

    def release(self) -> None:
        """The server has ended: the guard is to go without touching anything."""
        # Killed before the pipe closes, or it would take the closing for our death.
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def main() -> None:
    """Wait for the end of whoever holds the other end of standard input, then kill the server."""
    from importlib import import_module

    module, name, directory = sys.argv[1:]
    server: type[Guarded] = getattr(import_module(module), name)
    sys.stdin.buffer.read()
    server.attach(Path(directory)).kill()


if __name__ == "__main__":
    main()
