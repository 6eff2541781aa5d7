"""`worker dead-letters`: see why commands were set aside; send them back, or drop them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.group import Group, JsonLine
from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import counted, emit_document, emit_json, say

if TYPE_CHECKING:
    from worker.broker.client.dead_letter import StoredDeadLetter
    from worker.cli.dead_letters.selection import Selection
    from worker.settings.settings import Settings

app = Group(help="See why commands failed; send them back, or drop them.")

Selectors = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ID",
        help="Command ids, or numbers from `list`. Numbers change when letters come and go; ids "
        "do not. An id of digits only is written `id=123`.",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="Every letter that is there now.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Most = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most N letters.")]


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Show the oldest N.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Print all columns in full on a terminal, too.")
    ] = False,
) -> None:
    """List the dead letters, oldest first: number, time, code, type, command id, and why.

    On a terminal lines are cut to its width, columns are left out that find no room, and ages stand
    in place of times. In a pipe lines are complete.

    Reading takes nothing away: all letters go back to their places. RabbitMQ 4 counts this as
    a delivery of each of them.

    \b
    Examples:
      worker dead-letters list
      worker dead-letters list --json | jq -r 'select(.code == "failed").id'
    """
    from worker.cli.dead_letters.table import LetterTable

    show = _emit_summary if as_json else LetterTable(wide=wide).emit
    complete(_list(read_settings(), limit, show))


async def _list(settings: Settings, limit: int, show: Callable[[StoredDeadLetter], None]) -> None:
    from worker.broker.client.dead_letter_queue import open_dead_letters
    from worker.broker.topology import Topology

    topology = Topology.of(settings)
    async with open_dead_letters(settings.broker, topology) as letters:
        async for letter in letters.read(limit):
            show(letter)
        if letters.count > limit:
            say(f"{counted(letters.count - limit, 'more letter')}; see --limit")
        if letters.count == 0:
            say("there are no dead letters")


@app.command()
def show(
    selector: Annotated[
        str, typer.Argument(metavar="ID", help="The command id, or the number from `list`.")
    ],
    as_json: JsonLine = False,
) -> None:
    """Show everything that is known of a dead letter, as JSON: its headers and its body.

    A body that is no JSON object is shown as text (`body`), or else as `body_base64`.

    \b
    Examples:
      worker dead-letters show 1
      worker dead-letters show 0199f3a0-5c5e-7b0a-9d53-0d4a4f1f0b6e | jq .body
    """
    from worker.cli.dead_letters.selection import Selection

    complete(_show(read_settings(), Selection((selector,)), as_json))


async def _show(settings: Settings, choice: Selection, as_line: bool) -> None:
    from worker.cli.dead_letters.selection import open_chosen

    async with open_chosen(settings, choice) as (_, chosen):
        async for letter in chosen:
            emit_document(_document(letter), as_line=as_line)


@app.command()
def drop(
    selectors: Selectors = None,
    everything: All = False,
    limit: Most = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --all is deleted.")] = False,
) -> None:
    """Delete dead letters for good. Their commands are not carried out.

    Asks before --all is deleted. Prints what was deleted, one JSON object a line.

    \b
    Examples:
      worker dead-letters drop 1 2 --dry-run
      worker dead-letters drop --all --yes > dropped.ndjson
    """
    from worker.cli.dead_letters.drop import drop as run_drop
    from worker.cli.dead_letters.selection import Selection

    choice = Selection(tuple(selectors or ()), everything, limit)
    run_drop(read_settings(), choice, dry=dry_run, ask=not yes)


@app.command()
def redrive(
    selectors: Selectors = None,
    everything: All = False,
    *,
    limit: Most = None,
    rate: Annotated[
        float | None,
        typer.Option(metavar="PER_SECOND", min=0.001, help="Send at most that many a second."),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change a member of the command first, such as `data.email=ann@example.com`.",
            show_default=False,
        ),
    ] = None,
    edit: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Send this file (`-` is stdin) in place of the one letter's body."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Send dead letters back to be carried out, as they are or mended.

    Each is published with its own id and only then taken out of the dead letters: what is
    interrupted in between is done once all the same, since the worker knows the id. Where
    WORKER_AUTHORIZATION says who may send what, each is judged by the account that sent it first,
    its `user_id`, and unless yours may `redrive`, by yours as well. Prints each, one JSON object a
    line. One that --set cannot change stays where it is; exit code 1.

    \b
    Examples:
      worker dead-letters redrive --all --rate 50
      worker dead-letters redrive --all --set data.rating=null --dry-run
      worker dead-letters redrive 1 --set data.email=ann@example.com --dry-run
      worker dead-letters show 1 | jq .body > body.json
      worker dead-letters redrive 1 --edit body.json
    """
    from worker.cli.dead_letters.redrive import Editor
    from worker.cli.dead_letters.redrive import redrive as run_redrive
    from worker.cli.dead_letters.selection import Selection

    choice = Selection(tuple(selectors or ()), everything, limit)
    settings = read_settings()
    editor = Editor(settings, choice, changes or [], edit)
    complete(run_redrive(settings, choice, editor, rate=rate, dry=dry_run))


def summary_of(letter: StoredDeadLetter) -> dict[str, Any]:
    """The letter in short, for programs."""
    return {
        "number": letter.number,
        "id": letter.command_id,
        "type": letter.command_type,
        "code": letter.code,
        "detail": letter.detail,
        "user_id": letter.sender,
        "attempts": letter.headers.get("x-attempts"),
        "time": letter.time,
    }


def _emit_summary(letter: StoredDeadLetter) -> None:
    emit_json(summary_of(letter))


def _document(letter: StoredDeadLetter) -> dict[str, Any]:
    from base64 import b64encode

    document = summary_of(letter)
    document["headers"] = letter.headers
    document["properties"] = letter.other_properties
    if letter.content is not None:
        document["body"] = letter.content
        return document
    try:
        document["body"] = letter.body.decode()
    except UnicodeDecodeError:
        document["body_base64"] = b64encode(letter.body).decode()
    return document
