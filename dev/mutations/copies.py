"""Copies of the code and its tests, to be broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dev.mutations.mutation import Mutation

REPOSITORY = Path(__file__).resolve().parents[2]
_PARTS = ("worker", "tests", "docs", "alembic", "alembic.ini", "pyproject.toml")


@contextmanager
def copied(mutation: Mutation | None = None) -> Iterator[Path]:
    """A copy with the mutation applied; Python run in it imports its `worker`.

    Raises `NoLongerApplies`.
    """
    with TemporaryDirectory(prefix="worker-mutation-") as folder:
        root = Path(folder)
        for part in _PARTS:
            source = REPOSITORY / part
            if source.is_dir():
                # With what is compiled: it is valid by the source's time, which is copied as well.
                shutil.copytree(source, root / part)
            else:
                shutil.copy2(source, root / part)
        for each in mutation.changes if mutation else ():
            each.apply(root)
            _forget_compiled(root / each.file)
        yield root


def _forget_compiled(file: Path) -> None:
    for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
        compiled.unlink()
