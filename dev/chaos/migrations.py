"""New versions of the schema, made while the workers run: each adds a column to a table."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from alembic.script import ScriptDirectory

from worker.database.migrations import alembic_config

_REVISION = '''"""Add a column that nobody uses."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{previous}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("{revision}", sa.Text))


def downgrade() -> None:
    op.drop_column("users", "{revision}")
'''
_ORIGINAL = Path(__file__).parents[2] / "alembic"


class NotMigrated(Exception):
    """`worker migrate` has failed, and what it said."""


class Migrations:
    """A folder of migrations of the run's own (`WORKER_MIGRATIONS`)."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(_ORIGINAL, folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.folder = folder
        self._environment: Mapping[str, str] = {}

    async def apply(self, environment: Mapping[str, str]) -> None:
        """`worker migrate`; the environment is remembered for later ones."""
        self._environment = environment
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "migrate"),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise NotMigrated(f"worker migrate failed: {output.decode(errors='replace')}")

    async def add_and_apply(self) -> None:
        """One revision more."""
        (head,) = ScriptDirectory.from_config(alembic_config(self.folder)).get_heads()
        number = len(list((self.folder / "versions").glob("chaos_*.py"))) + 1
        revision = f"chaos_{number:04d}"
        text = _REVISION.format(revision=revision, previous=head)
        path = self.folder / "versions" / f"{revision}.py"
        path.write_text(text)
        try:
            await self.apply(self._environment)
        except NotMigrated:
            path.unlink()  # or no worker would start any more
            raise
