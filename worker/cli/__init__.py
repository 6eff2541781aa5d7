"""The command line `worker`: one file a command.

Each imports what it needs when it runs, so that `worker --help` and completion stay quick.

Exit codes: 0 done, 1 unexpected, 2 usage or settings, 3 the command was refused, 4 broker or
database unreachable, 5 timed out.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from worker import __version__
from worker.cli import (
    dead_letters,
    demo,
    doctor,
    health,
    lab,
    ledger,
    migrate,
    migration,
    partitions,
    publish,
    query,
    run,
    schema,
    watch,
)
from worker.cli.group import Group
from worker.cli.terminal import OutputClosed, emit, say
from worker.core.errors import WorkerError

app = Group(
    name="worker",
    help="JSON commands in from RabbitMQ, one PostgreSQL transaction each, result events out.\n\n"
    "Settings are environment variables that begin with WORKER_, or lines of a file `.env`.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        emit(f"worker {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,  # also where the rest of the line is wrong
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    pass


app.command("run")(run.run)
app.command("health")(health.health)
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)
app.command("migration")(migration.migration)
app.command("publish")(publish.publish)
app.command("query")(query.query)
app.command("watch")(watch.watch)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(ledger.app, name="ledger")
app.add_typer(partitions.app, name="partitions")
app.add_typer(lab.app, name="lab")
app.command("schema")(schema.schema)
app.command("demo")(demo.demo)

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    # All is flushed and every connection is closed: no library's finaliser may keep the process.
    os._exit(exit_code())


def exit_code() -> int:
    """Run the command line of `sys.argv`; the code to end the process with."""
    try:
        # Not `app()`: that would put typer's own hook for exceptions in place.
        typer.main.get_command(app)(prog_name="worker")
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else 1)
    except WorkerError as error:
        say(f"error: {error}")
        return _flushed(error.exit_code)
    except OutputClosed:
        return _flushed(0)
    except KeyboardInterrupt:
        return _flushed(INTERRUPTED)
    except Exception as error:
        _tell_unexpected(error)
        return _flushed(1)
    return _flushed(0)


def _flushed(code: int) -> int:
    """The code, with nothing left that the end of the process would fail to write."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def _tell_unexpected(error: Exception) -> None:
    if os.environ.get("WORKER_LOG_LEVEL", "").lower() == "debug":
        say("".join(traceback.format_exception(error)).rstrip())
        return
    first = (str(error).strip().splitlines() or [""])[0][:300]
    notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
    say(
        f"error: unexpected {type(error).__name__}{': ' + first if first else ''}{notes} "
        "(WORKER_LOG_LEVEL=debug shows where)"
    )
