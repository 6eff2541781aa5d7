"""The parent process; `worker run --processes N` becomes it."""

from __future__ import annotations

import asyncio
import sys

from worker.core.errors import WorkerError
from worker.service.supervisor.log import tell
from worker.service.supervisor.plan import Plan
from worker.service.supervisor.supervisor import Supervisor


def main() -> int:
    """Supervise according to the plan on the command line; return the exit code."""
    plan = Plan.from_argument(sys.argv[1])
    try:
        return asyncio.run(Supervisor(plan).run())
    except WorkerError as error:
        tell(f"error: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
