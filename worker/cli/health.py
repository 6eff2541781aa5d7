"""`worker health`: the health pages asked once, for a health check."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from typing import Annotated, Any

import typer

from worker.cli.prepare import read_settings
from worker.cli.terminal import say
from worker.core.errors import Misconfigured, Unreachable, WorkerError

ANSWER_SECONDS = 3.0
ANSWER_BYTES = 1_000_000
_LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Who listens on every address of the machine is asked here."""


def health(
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Ask only whether it runs, not whether it is ready: one that does not is worth a "
            "restart, one whose database is down is not.",
        ),
    ] = False,
) -> None:
    """Ask the worker on this machine whether it is ready.

    Asks its health page at WORKER_HEALTH__HOST and WORKER_HEALTH__PORT, and waits 3 seconds at
    most. Exit code 0 or 1, with one line that says why: also for a wrong setting, since health
    checks know no other codes.

    \b
    Examples:
      worker health
      worker health --live
      docker exec my-worker worker health
    """
    try:
        where = read_settings().health
        page = _ask(where.host, where.port, "/livez" if live else "/readyz")
    except WorkerError as error:
        say(f"error: {' '.join(str(error).splitlines())}")
        raise typer.Exit(1) from None
    if page.get("alive" if live else "ready") is True:
        say("alive" if live else "ready")
        return
    say(f"not {'alive' if live else 'ready'}: {'; '.join(_reasons(page)) or 'no reason is given'}")
    raise typer.Exit(1)


def _ask(host: str, port: int, path: str) -> Mapping[str, Any]:
    """What the page says. Raises `Unreachable` where no worker's page answers in time."""
    if port == 0:
        raise Misconfigured(
            "WORKER_HEALTH__PORT=0 takes any free port, so it is not known here: set another"
        )
    host = _LOOPBACK_OF.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"
    # Not by urllib: that would ask a proxy which the environment names.
    connection = HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        page = json.loads(connection.getresponse().read(ANSWER_BYTES))
    except (HTTPException, ValueError) as error:
        raise Unreachable(_no_worker(url)) from error
    except OSError as error:
        raise Unreachable(
            f"nobody answers at {url} ({error.strerror or error}): start it with `worker run`, or "
            "set WORKER_HEALTH__HOST and WORKER_HEALTH__PORT as it has them"
        ) from error
    finally:
        connection.close()
    if not isinstance(page, dict):
        raise Unreachable(_no_worker(url))
    return page


def _no_worker(url: str) -> str:
    return f"what answers at {url} is no worker: set WORKER_HEALTH__PORT as the worker has it"


def _reasons(state: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Each part that is not well and why, as `process 2, database: …`."""
    if reason := state.get("reason"):
        since = f" (since {state['since']})" if "since" in state else ""
        yield f"{place}: {reason}{since}" if place else f"{reason}{since}"
    if silent := state.get("silent"):
        yield f"no sign of life from process {', '.join(map(str, silent))}"
    for number, inner in state.get("processes", {}).items():
        yield from _reasons(inner, f"process {number}")
    for name, inner in state.get("parts", {}).items():
        yield from _reasons(inner, f"{place}, {name}" if place else name)
