"""`worker`, with places at which it can be told to kill itself, and a clock that can be turned.

Production cannot reach any of this: the code of the worker has no hook, its methods are wrapped
from here, in processes that the rig has started with this module in place of `worker`.
"""

from __future__ import annotations

import datetime as datetimes
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

CONTROL = "CHAOS_CONTROL"
"""The variable that names the folder in which a worker finds what it is told."""

RIG = "CHAOS_RIG"
"""The variable that names the process of the rig, where one is there to be outlived."""

CUTS = ("received", "in-transaction", "committed", "published")
"""A delivery was taken; all is written, COMMIT is next; committed, nothing published; events
confirmed, nothing acknowledged."""

_MODULE = "dev.chaos.launcher"
_SUPERVISE = "--supervise"


class Control:
    """Orders to the processes of one worker, as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def arm(self, cut: str) -> None:
        """The first process that comes to this point is to die there."""
        self._hit(cut).unlink(missing_ok=True)
        self._order(cut).touch()

    def disarm(self, cut: str) -> None:
        """Let nobody die there any more."""
        self._order(cut).unlink(missing_ok=True)

    def was_hit(self, cut: str) -> bool:
        """Whether a process has died there since it was armed."""
        return self._hit(cut).exists()

    def turn_clock(self, seconds: float) -> None:
        """Let the wall clock be so far ahead, or behind."""
        new = self._folder / "clock.new"
        new.write_text(str(seconds))
        new.replace(self._folder / "clock")

    def clock_seconds(self) -> float:
        """How far the wall clock is to be off."""
        try:
            return float((self._folder / "clock").read_text())
        except FileNotFoundError:
            return 0

    def pass_by(self, cut: str) -> None:
        """Die here, if that is wanted."""
        try:
            os.unlink(self._order(cut))  # one process gets it
        except FileNotFoundError:
            return
        self._hit(cut).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)

    def _order(self, cut: str) -> Path:
        return self._folder / f"cut-{cut}"

    def _hit(self, cut: str) -> Path:
        return self._folder / f"hit-{cut}"


def install_cuts(control: Control) -> None:
    """Wrap the seams of the pipeline."""
    from worker.broker.publisher.publisher import Publisher
    from worker.processing import single_statement
    from worker.processing.transaction import Transaction
    from worker.service.service import Service

    take = Service._take

    def taken(self: Service, delivery: Any) -> None:
        control.pass_by("received")
        take(self, delivery)

    Service._take = taken  # type: ignore[method-assign]
    _wrap(Transaction, "_remember", after=lambda: control.pass_by("in-transaction"))
    # A create alone in its group is one statement, and its own transaction.
    _wrap(single_statement, "insert_and_record", before=lambda: control.pass_by("in-transaction"))
    _wrap(
        Publisher,
        "publish",
        before=lambda: control.pass_by("committed"),
        after=lambda: control.pass_by("published"),
    )


def _wrap(
    owner: object,
    name: str,
    *,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def wrapped(*arguments: Any, **named: Any) -> Any:
        before()
        result = await original(*arguments, **named)
        after()
        return result

    setattr(owner, name, wrapped)


def install_clock(control: Control) -> None:
    """Shift the wall clock wherever the worker reads it; monotonic clocks stay as they are."""
    real, real_ns, monotonic = time.time, time.time_ns, time.monotonic
    known, looked = 0.0, monotonic()

    def offset() -> float:
        nonlocal known, looked
        if monotonic() - looked > 0.1:
            known, looked = control.clock_seconds(), monotonic()
        return known

    class Shifted(datetimes.datetime):
        @classmethod
        def now(cls, tz: datetimes.tzinfo | None = None) -> Shifted:
            return cls.fromtimestamp(time.time(), tz)

    _replace("time", "time", lambda: real() + offset())
    _replace("time", "time_ns", lambda: real_ns() + round(offset() * 1e9))
    _replace("worker.core.messages", "time_ns", time.time_ns)
    _replace("worker.core.messages", "datetime", Shifted)
    _replace("worker.broker.protocol.properties", "datetime", Shifted)


def _replace(module: str, name: str, value: object) -> None:
    """Put something else under a module's name; loudly, where there is no such name any more."""
    found = import_module(module)
    getattr(found, name)
    setattr(found, name, value)


def main(arguments: Sequence[str]) -> int:
    """What `worker` does, or, with `--supervise PLAN`, its parent of several processes."""
    if arguments[:1] == [_SUPERVISE]:
        from worker.service.supervisor.__main__ import main as supervise

        # The children are to be of this kind, too.
        _replace("worker.service.supervisor.child", "python_module", _instead)
        sys.argv = ["worker.service.supervisor", *arguments[1:]]
        return supervise()

    from worker.cli import exit_code

    _replace(
        "worker.service.supervisor.plan",
        "python_module",
        lambda name: [*_instead(name), _SUPERVISE],
    )
    if not _becomes_parent(arguments):
        control = Control(Path(os.environ[CONTROL]))
        install_cuts(control)
        install_clock(control)
    if RIG in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ[RIG]),), daemon=True).start()
    sys.argv = ["worker", *arguments]
    return exit_code()


def _becomes_parent(arguments: Sequence[str]) -> bool:
    """Whether it starts others, and carries out nothing: what it need not import only delays it."""
    several = any(word.startswith("--processes=") and word[12:] != "1" for word in arguments)
    return several and not any(word.startswith("--child") for word in arguments)


def _end_with(pid: int) -> None:
    """A rig that was killed leaves no workers behind."""
    while Path(f"/proc/{pid}").exists():
        time.sleep(1)
    os._exit(1)


def _instead(_name: str) -> list[str]:
    return [sys.executable, "-m", _MODULE]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
