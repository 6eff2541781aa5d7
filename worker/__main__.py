"""Where the command `worker` begins: as a script, and as `python -m worker`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.argv[1:2] == ["run"]:
        _end_when_signalled()
    from worker.cli import main as run_command

    run_command()


def _end_when_signalled() -> None:
    """Until the service heeds signals itself nothing is in hand, so a stop in order is the end.

    Not by an exception: it would come in the middle of an import, and some of these catch all.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if sys.platform != "win32":
        # One of several processes is born with it blocked, so that it cannot come before this.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


if __name__ == "__main__":
    main()
