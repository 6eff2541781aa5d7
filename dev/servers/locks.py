"""Two commands in the same checkout at once take turns; a `run` shows that it uses the servers."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.servers.progress import step


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock; wait for whoever holds it."""
    with step(f"waiting for another command that holds {path}"):
        descriptor = _acquire(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        path.parent.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # `clean` removes the file while others wait for it: a lock on what is gone locks nothing.
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


class InUse:
    """Held by every `run` as long as its command needs the servers.

    The system lets go of it when the process dies, so a killed `run` is never counted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def begin(self) -> None:
        """Show that this process needs the servers."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def end(self) -> bool:
        """Need them no longer; true if no other process does."""
        if self._descriptor is None:
            return False
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(self._descriptor)
            self._descriptor = None
        return True
