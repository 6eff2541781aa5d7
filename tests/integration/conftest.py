"""An engine on the test's database; a package of a user's own, made from the pages of the docs."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.databases import fresh_database
from worker.database.engine import make_engine
from worker.settings.settings import Settings

ROOT = Path(__file__).parents[2]


def code_of(page: str) -> list[str]:
    """The blocks of Python on a page of the docs."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


@dataclass(frozen=True)
class Shop:
    """A folder with the package `shop`, which has a migration of its own."""

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a worker needs to know of it."""
        return {
            "WORKER_ENTITIES": "worker.entities,shop.entities",
            "PYTHONPATH": str(self.directory),
            "WORKER_MIGRATIONS": str(self.directory / "shop" / "migrations"),
        }

    async def run(self, environment: Mapping[str, str], *arguments: str, code: int = 0) -> str:
        """Run a module with these arguments; return what it wrote."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *arguments,
            cwd=self.directory,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == code, output.decode()
        return output.decode()


@pytest.fixture(scope="session")
async def shop(
    tmp_path_factory: pytest.TempPathFactory, server_url: str, template_database: str
) -> Shop:
    """The shop of docs/entities.md, with the migration that `worker migration` writes."""
    directory = tmp_path_factory.mktemp("packages")
    (code,) = code_of("entities.md")
    (directory / "shop" / "migrations").mkdir(parents=True)
    (directory / "shop" / "__init__.py").touch()
    (directory / "shop" / "entities.py").write_text(code)
    shop = Shop(directory)
    name = f"{template_database}_shop"
    async with fresh_database(server_url, name, template=template_database) as url:
        environment = {**os.environ, **shop.environment, "WORKER_DATABASE__URL": url}
        await shop.run(environment, "worker", "migration", "add products")
    return shop


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    """An engine on this test's database."""
    engine = make_engine(settings.database)
    yield engine
    await engine.dispose()
