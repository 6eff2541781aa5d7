"""`worker publish`: send commands, confirmed; perhaps wait for the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.prepare import complete, known_type, read_settings
from worker.cli.terminal import Misused
from worker.cli.values import fields

if TYPE_CHECKING:
    from worker.cli.published import Published
    from worker.core.registry import Registry
    from worker.settings.settings import Settings


def publish(
    type_: Annotated[
        str | None,
        typer.Argument(metavar="TYPE", help="What is to be done, such as `user.create`."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FIELD=VALUE",
            help="The command's data. A value has the type of its field: `username=123` is text, "
            "`rating=4.5` a number, `rating=null` empties it. `user.username=ann` names a row "
            "that is referred to.",
            show_default=False,
        ),
    ] = None,
    *,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD=VALUE",
            help="The row to change or delete, by one unique field: `id=42`, `username=ann`.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="The data as JSON; fields given as well are added."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Publish whole commands, one JSON object a line; `-` is stdin. A command "
            "without an id gets one. A line that is no usable command ends it; those before are "
            "published.",
        ),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="The command's id; made up if not given. The same command with the same id takes "
            "effect once, however often it is published.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Commands with the same key take effect in order."),
    ] = None,
    expected_version: Annotated[
        int | None,
        typer.Option(metavar="N", help="Refuse unless the row is at this version."),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait for the result event of each and print it; exit code 3 if one was refused.",
        ),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.001, help="How long --wait waits for each event."),
    ] = 30,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on a terminal, too; one object a line.")
    ] = False,
) -> None:
    """Publish commands; the broker confirms each.

    Prints the id and type of each once the broker has stored it, or with --wait the event that
    answers it: JSON lines, or words on a terminal. What a worker with the same entities could only
    set aside as a dead letter is not sent; exit code 2.

    \b
    Examples:
      worker publish user.create username=ann email=ann@example.com --wait
      worker publish user.update rating=4.5 --target username=ann
      worker publish order.create user.username=ann --wait --timeout 5
      worker publish --file commands.ndjson --wait > events.ndjson
    """
    if file is not None:
        single = (type_, target, data, id_, key, expected_version)
        if assignments or any(option is not None for option in single):
            raise Misused(
                "--file holds whole commands: give no type, and no options but --wait, --timeout "
                "and --json"
            )
        from worker.cli.publish_file import publish_file

        publish_file(read_settings(), file, wait=timeout if wait else None, as_json=as_json)
        return
    if type_ is None:
        raise Misused("give the TYPE of the command, such as user.create, or --file")
    settings = read_settings()
    from worker.cli.published import Published
    from worker.core.messages import new_id
    from worker.core.registry import load_registry

    command: dict[str, Any] = {"id": new_id() if id_ is None else id_, "type": type_}
    registry = load_registry(settings.entities)
    command |= _members(registry, type_, assignments or [], target, data)
    if key is not None:
        command["key"] = key
    if expected_version is not None:
        command["expected_version"] = expected_version
    published = Published(as_json=as_json)
    complete(_publish(settings, registry, command, timeout if wait else None, published))
    published.raise_if_refused()


def _members(
    registry: Registry, type_: str, assignments: list[str], target: str | None, data: str | None
) -> dict[str, Any]:
    """`data` and `target` of the command."""
    found = registry.find(known_type(registry, type_))
    assert found is not None
    entity, verb = found[0], found[0].verbs[found[1]]
    members: dict[str, Any] = {}
    if target is not None:
        members["target"] = fields(entity.target, [target])
    given = {} if data is None else _json(data)
    if assignments:
        if not isinstance(given, dict):
            raise Misused("--data is no JSON object, so no fields can be added to it")
        given = fields(verb.payload, assignments, into=given)
    if data is not None or assignments or verb.payload is not None:
        members["data"] = given
    return members


def _json(text: str) -> Any:
    from worker.codec.strict_json import Malformed, read_json

    try:
        return read_json(text)
    except Malformed as error:
        raise Misused(f"--data: {error}") from None


async def _publish(
    settings: Settings,
    registry: Registry,
    command: dict[str, Any],
    wait: float | None,
    published: Published,
) -> None:
    from worker.broker.client.client import open_sender
    from worker.broker.topology import Topology
    from worker.cli.outgoing import publication_of
    from worker.codec.codec import Codec
    from worker.core.errors import TimedOut, Unreachable

    topology = Topology.of(settings)
    codec = Codec(registry, max_body_bytes=settings.max_body_bytes)
    publication = publication_of(topology, codec, command)
    id_ = command["id"]
    async with open_sender(settings.broker, topology, f"{settings.namespace} publish") as sender:
        try:
            if wait is None:
                await sender.send(publication)
                published.show_confirmed(command)
                return
            reply = await sender.ask(publication, timeout_seconds=wait)
        except TimedOut as error:
            raise TimedOut(f"{error} Look later: worker ledger show {id_}") from error
        except Unreachable as error:
            raise Unreachable(
                f"{error}. It is not known whether the broker has command {id_}; "
                f"publishing it again with --id {id_} is safe"
            ) from error
    published.show_answer(reply.body)
