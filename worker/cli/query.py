"""`worker query`: ask for rows; a table for people, JSON lines for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import Misused, say

if TYPE_CHECKING:
    from worker.broker.client.client import Client
    from worker.core.registry import Registry
    from worker.settings.settings import Settings

OPTIONS = {
    "/target": "--target",
    "/data/where": "where",
    "/data/order_by": "--order-by",
    "/data/limit": "--limit",
    "/data/after": "--after",
    "/data/fields": "--fields",
    "/data/include": "--include",
    "/data/aggregate": "--aggregate",
    "/data/group_by": "--group-by",
}


def query(
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="What to ask for, as `user`.")],
    conditions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONDITION",
            help="`username=ann`, `rating:gte=4`, `id:in=1,2`, `email:ends_with=@example.com`, "
            "`user.username=ann`, `orders.some.is_completed=false`; all of them hold.",
            show_default=False,
        ),
    ] = None,
    *,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="The filter as JSON, in place of conditions.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="FIELD=VALUE", help="One row, by a unique field: `username=ann`."),
    ] = None,
    order_by: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD", help="The order; `-created_on` is the newest first."),
    ] = None,
    fields: Annotated[
        str | None, typer.Option(metavar="A,B", help="The fields to show; all if not given.")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="RELATION", help="Rows to show with each row.")
    ] = None,
    aggregate: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='Figures in place of rows: `{"count": true}`.'),
    ] = None,
    group_by: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="The figures of each group.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Rows in a page, at most 1000; 100 if not given."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="Go on where another page has ended.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Ask for page after page.")] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="How long a page is waited for.")
    ] = 30,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on a terminal, too; one object a line.")
    ] = False,
) -> None:
    """Ask a worker for rows, as docs/queries.md says.

    Prints a table on a terminal and JSON lines in a pipe. Exit code 3 if the query was refused.

    \b
    Examples:
      worker query user rating:gte=4 --order-by -created_on
      worker query user --where '{"orders": {"some": {"is_completed": false}}}'
      worker query user --target username=ann --include orders
      worker query order --aggregate '{"count": true}' --group-by user_id
      worker query order --all > orders.ndjson
    """
    settings = read_settings()
    from worker.core.registry import load_registry

    if where is not None and conditions:
        raise Misused("give conditions or --where, not both")
    registry = load_registry(settings.entities)
    if f"{entity}.list" not in registry.query_types:
        known = ", ".join(each.name for each in registry)
        raise Misused(f"there is no entity {entity!r} to ask for; there are: {known}")
    given: dict[str, Any] = {
        "where": _where(registry, entity, where, conditions),
        "order_by": order_by,
        "fields": fields.split(",") if fields is not None else None,
        "include": include,
        "aggregate": _json("--aggregate", aggregate),
        "group_by": group_by,
        "limit": limit,
        "after": after,
    }
    data = {name: value for name, value in given.items() if value is not None}
    command: dict[str, Any] = {"type": f"{entity}.list", "data": data}
    if target is not None:
        from worker.cli.values import fields as members

        key = members(registry[entity].target, [target])
        command = {"type": f"{entity}.get", "target": key, "data": data}
    complete(_ask(settings, registry, command, timeout, everything=everything, as_json=as_json))


def _where(registry: Registry, entity: str, where: str | None, conditions: list[str] | None) -> Any:
    if not conditions:
        return _json("--where", where)
    from worker.cli.filters import where_of
    from worker.core.query_schema import QuerySchemas

    return where_of(QuerySchemas(registry), entity, conditions)


def _json(option: str, text: str | None) -> Any:
    from worker.codec.strict_json import Malformed, read_json

    try:
        return None if text is None else read_json(text)
    except Malformed as error:
        raise Misused(f"{option}: {error}") from None


async def _ask(
    settings: Settings,
    registry: Registry,
    command: dict[str, Any],
    timeout: float,
    *,
    everything: bool,
    as_json: bool,
) -> None:
    from worker.broker.client.client import open_sender
    from worker.broker.topology import Topology
    from worker.cli.rows import RowTable
    from worker.codec.codec import Codec

    topology = Topology.of(settings)
    codec = Codec(registry, max_body_bytes=settings.max_body_bytes)
    rows = RowTable(as_json=as_json)
    async with open_sender(settings.broker, topology, f"{settings.namespace} query") as sender:
        while True:
            answer = await _page(sender, topology, codec, command, timeout)
            rows.show(answer)
            cursor = answer.get("next") if command["type"].endswith(".list") else None
            if cursor is None:
                return
            if not everything:
                say(f"there are more: --after {cursor}, or --all")
                return
            command["data"]["after"] = cursor


async def _page(
    sender: Client, topology: Any, codec: Any, command: dict[str, Any], timeout: float
) -> dict[str, Any]:
    from worker.cli.events import members_of, problem_of
    from worker.cli.outgoing import publication_of
    from worker.core.errors import CommandRefused
    from worker.core.messages import new_id

    asked = {"id": new_id(), **command}
    publication = publication_of(topology, codec, asked, options=OPTIONS, reply_to="here")
    reply = await sender.ask(publication, timeout_seconds=timeout, expires=True)
    event = members_of(reply.body) or {}
    problem = problem_of(event)
    if problem is not None:
        raise CommandRefused(f"{problem.get('code')}: {problem.get('detail')}")
    return dict(event["data"])
