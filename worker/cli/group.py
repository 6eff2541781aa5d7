"""What all groups of commands have in common: plain help, and options that are given once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from worker.cli.terminal import Misused

JsonLine = Annotated[
    bool, typer.Option("--json", help="Print one line on a terminal, too, not indented.")
]


class DocumentedCommand(TyperCommand):
    """A command that refuses an option which holds one value and is given several times.

    The last one would win in silence: `--target id=1 --target id=2` would change row 2.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as ever; raises `Misused` for what is given more often than it can hold."""
        if not ctx.resilient_parsing:  # a shell asks for completions of what is half typed
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option, times in Counter(given).items():
                if times > 1 and _holds_one_value(option):
                    raise Misused(f"{option.opts[0]} is given {times} times; give it once")
        return super().parse_args(ctx, args)


def _holds_one_value(parameter: object) -> bool:
    return isinstance(parameter, TyperOption) and not parameter.is_flag and not parameter.multiple


class Group(typer.Typer):
    """`worker`, or a group of its commands such as `worker ledger`; alone it prints its help."""

    def __init__(self, **options: Any) -> None:
        # No markup: `[field=value …]` in a help text is no style, and a plain page suits any
        # terminal.
        super().__init__(no_args_is_help=True, rich_markup_mode=None, **options)

    def command(self, *arguments: Any, **options: Any) -> Callable[[Any], Any]:
        """Add a command, which takes each option once."""
        return super().command(*arguments, cls=DocumentedCommand, **options)
