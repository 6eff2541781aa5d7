"""`worker schema`: JSON Schemas of the commands, for validators and generators."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.cli.prepare import known_type
from worker.cli.terminal import as_json, emit, json_safe


def schema(
    type_: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE", help="The type of a command or query; all commands if not given."
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of the commands.

    It is of draft 2020-12, and describes a command's whole body. Without TYPE: one schema that
    fits every command, with one definition for each type. What fits may still be refused, by
    rules that a schema cannot say: an address that is none, a name that is taken.

    \b
    Examples:
      worker schema user.create > user.create.schema.json
      worker schema user.list
      worker schema | jq '."$defs"."order.create"'
    """
    from worker.codec.schemas import schema_of, schema_of_all
    from worker.core.registry import load_registry
    from worker.settings.settings import load_settings

    registry = load_registry(load_settings().entities)
    if type_ is None:
        document = schema_of_all(registry)
    else:
        document = schema_of(registry, known_type(registry, type_, or_query=True))
    for line in as_json(document, indent=2).split("\n"):
        emit(json_safe(line))
