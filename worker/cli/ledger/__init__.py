"""`worker ledger`: what became of a command; stored events again; old entries away."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.group import Group, JsonLine
from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import Misused, counted, emit_document, emit_json, say
from worker.cli.values import duration, moment
from worker.core.errors import Misconfigured, WorkerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from worker.database.engine import Sessions
    from worker.settings.settings import Settings

app = Group(help="Look up commands; publish their events again.")

UNDEFINED_TABLE = "42P01"

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


class NotInLedger(WorkerError):
    """No command with that id is in the ledger; exit code 1."""


@app.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The command's id.")],
    as_json: JsonLine = False,
) -> None:
    """Show what became of a command, as JSON: the outcome, when, and the event that answered it.

    `outcome` is `done`, `refused` or `dead_lettered`. Exit code 1 if the ledger does not know the
    id: the command is still waiting, never came, or is older than the retention.

    \b
    Examples:
      worker ledger show 0199f3a0-5c5e-7b0a-9d53-0d4a4f1f0b6e
      worker ledger show my-import-17 --json | jq .event.data
    """
    complete(_show(read_settings(), id_, as_json))


async def _show(settings: Settings, id_: str, as_line: bool) -> None:
    from worker.database import ledger

    async with open_sessions(settings) as sessions, sessions() as session:
        # PostgreSQL's text knows no U+0000, so no command has such an id.
        entries = {} if "\0" in id_ else await ledger.lookup(session, [id_])
    entry = entries.get(id_)
    if entry is None:
        raise NotInLedger(unknown(id_, settings))
    emit_document(
        {
            "id": entry.command_id,
            "outcome": entry.outcome,
            "recorded_on": _rfc3339(entry.recorded_on),
            "digest": entry.digest.hex(),
            "event": json.loads(entry.answer.body),
        },
        as_line=as_line,
    )


@app.command()
def republish(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Command ids.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="All commands recorded since then: an age such as `1h`, or a time with its zone "
            "such as `2026-11-23T08:00:00Z`.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="PER_SECOND", min=0.001, help="Publish at most that many a second."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Publish stored events again, for subscribers that have lost some, or a broker its disk.

    The bytes are the same, so is the event's id; the header `x-replayed` says that it comes
    again. They go out in the order in which they were recorded. Prints each, one JSON object a
    line.

    \b
    Examples:
      worker ledger republish --since 1h --dry-run
      worker ledger republish 0199f3a0-5c5e-7b0a-9d53-0d4a4f1f0b6e
    """
    if bool(ids) == (since is not None):
        raise Misused("give either command ids or --since")
    begin = None if since is None else moment(since, datetime.now(UTC))
    if since is not None and begin is None:
        raise Misused(
            f"--since {since}: give an age such as 90s, 5m, 2h or 1d, or a time with its zone "
            "such as 2026-11-23T08:00:00Z"
        )
    from worker.cli.ledger.republish import republish as run_republish

    complete(run_republish(read_settings(), ids or [], begin, rate=rate, dry=dry_run))


@app.command()
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Age from which commands are forgotten, such as `12h` or `7d`; "
            "WORKER_LEDGER_RETENTION_DAYS if not given.",
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Forget old commands. A running worker does that by itself, twice a minute.

    A command whose id is forgotten is carried out anew if it comes again, so keep more than the
    longest time after which somebody may send one twice. Prints the number, as JSON.

    \b
    Examples:
      worker ledger prune --dry-run
      worker ledger prune --older-than 30d
    """
    age = None if older_than is None else duration(older_than)
    if older_than is not None and age is None:
        raise Misused(f"--older-than {older_than}: give an age such as 90s, 5m, 12h or 7d")
    settings = read_settings()
    retention = timedelta(days=settings.ledger_retention_days)
    complete(_prune(settings, retention if age is None else age, dry_run))


async def _prune(settings: Settings, age: timedelta, dry: bool) -> None:
    from sqlalchemy import func, select

    from worker.database.ledger import LedgerRow
    from worker.database.ledger_retention import forget

    count = 0
    async with open_sessions(settings) as sessions:
        if dry:
            old = select(func.count()).where(LedgerRow.recorded_on < func.now() - age)
            async with sessions() as session:
                count = await session.scalar(old) or 0
        else:
            async for forgotten in forget(sessions, age):
                count += forgotten
    emit_json({"would_forget" if dry else "forgotten": count})
    say(f"{counted(count, 'command')} {'would be ' if dry else ''}forgotten")


def unknown(id_: str, settings: Settings) -> str:
    """The sentence for an id that the ledger does not have."""
    return (
        f"no command with id {id_!r} is in the ledger. It is still waiting in the queue, never "
        f"came, or was forgotten after {settings.ledger_retention_days:g} days"
    )


@asynccontextmanager
async def open_sessions(settings: Settings) -> AsyncIterator[Sessions]:
    """Sessions with the database; what fails is told in a sentence, as by `explain`."""
    from sqlalchemy.exc import SQLAlchemyError

    from worker.database.engine import make_engine, make_sessions
    from worker.database.errors import explain

    engine = make_engine(settings.database, name=f"{settings.namespace} ledger")
    try:
        yield make_sessions(engine)
    except (SQLAlchemyError, OSError) as error:
        if getattr(getattr(error, "orig", None), "sqlstate", None) == UNDEFINED_TABLE:
            raise Misconfigured(
                "The database has no ledger. Bring its schema there with: worker migrate"
            ) from error
        raise explain(error, engine) from error
    finally:
        await engine.dispose()


def _rfc3339(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")
