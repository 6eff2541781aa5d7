"""What a mutation is, and how it is applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent


class NoLongerApplies(Exception):
    """The code has changed: the mutation must be written anew."""


@dataclass(frozen=True)
class Change:
    """A text that stands exactly once in a file, and what is put in its place."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the file below `root`, or raise `NoLongerApplies`."""
        path = root / self.file
        text = path.read_text()
        found = text.count(self.old)
        if found != 1:
            raise NoLongerApplies(f"{self.file} holds {found} times, not once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Mutation:
    """One way to break the code, and the tests that are to turn red by it, each of them."""

    name: str
    breaks: str
    """What a user would lose, in a few words."""
    guarantee: str
    changes: tuple[Change, ...]
    witnesses: tuple[str, ...]
    """pytest's ids, without the folder `tests/`."""


def change(file: str, old: str, new: str, *, depth: int = 0) -> Change:
    """A change of `worker/<file>`; both texts are given without their indentation of `depth`."""
    return Change(
        f"worker/{file}", *(indent(dedent(t).strip("\n"), " " * depth) for t in (old, new))
    )
