"""An option that holds one value is given once, with every command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from worker.cli import app
from worker.cli.terminal import Misused


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app)))
OPTIONS = [
    pytest.param(name, option, id=f"{name} {option.opts[0]}")
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, TyperOption) and not option.is_flag and not option.multiple
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_what_holds_one_value_is_given_once(name: str, option: TyperOption) -> None:
    arguments = [option.opts[-1], "1"] * 3

    with pytest.raises(Misused, match=rf"^{option.opts[0]} is given 3 times; give it once$"):
        COMMANDS[name].make_context(name, arguments)


def test_flags_and_what_holds_several_values_may_be_repeated() -> None:
    arguments = ["--all", "--all", "--set", "a=1", "--set", "b=2"]
    context = COMMANDS["dead-letters redrive"].make_context("redrive", arguments)

    assert context.params["everything"] is True
    assert list(context.params["changes"]) == ["a=1", "b=2"]


def test_completion_of_what_is_half_typed_is_no_error() -> None:
    arguments = ["--target", "id=1", "--target", "id=2"]

    COMMANDS["publish"].make_context("publish", arguments, resilient_parsing=True)
