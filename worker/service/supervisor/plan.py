"""What the parent must know of the settings, and how the command line becomes the parent."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What the parent heeds, for all."""


@dataclass(frozen=True)
class Plan:
    """All that the parent is told; the children read the settings themselves."""

    processes: int
    health_host: str
    health_port: int
    shutdown_seconds: float
    log_level: str
    log_as_json: bool

    def as_argument(self) -> str:
        """The plan as one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> Plan:
        """The plan that `as_argument` wrote."""
        return cls(**json.loads(argument))


def become_supervisor(plan: Plan) -> NoReturn:
    """Go on as the parent, in this very process: its id is the one that gets the signals."""
    sys.stdout.flush()
    sys.stderr.flush()
    command = [*python_module("worker.service.supervisor"), plan.as_argument()]
    # What comes meanwhile waits until the parent heeds it: a mask outlasts the exec.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.execv(sys.executable, command)  # noqa: S606 - no shell is meant


def python_module(name: str) -> list[str]:
    """The command that runs a module and finds what this process finds.

    `python -m` would also look into the working directory, which an installed `worker` does not.
    """
    safe_path = [] if os.getcwd() in sys.path else ["-P"]
    return [sys.executable, *safe_path, "-m", name]
