"""Migrations of a user's own beside the worker's: which come first, and where new ones stand."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.databases import dsn
from worker.cli.migration import _folder, _write
from worker.core.errors import Misconfigured
from worker.database.engine import make_engine
from worker.database.migrations import alembic_config, check_schema
from worker.settings.settings import Settings

ROOT = Path(__file__).parents[2]
OWN = ROOT / "alembic"
NEWEST = ScriptDirectory.from_config(alembic_config()).get_current_head()


@dataclass
class Place:
    """A database, and folders of migrations for it."""

    folder: Path
    url: str
    engine: AsyncEngine

    def make(self, name: str, revisions: dict[str, str | None], depends_on: str = "") -> Path:
        """A folder of revisions that do nothing, each with the one below it."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        for revision, below in revisions.items():
            (folder / f"{revision}.py").write_text(
                f"revision, down_revision, depends_on = {revision!r}, {below!r}, {depends_on!r}\n"
                "def upgrade(): pass\n"
            )
        return folder

    def later_worker(self) -> Path:
        """The worker's own migrations, and one more on top."""
        shutil.copytree(OWN, self.folder / "worker")
        self.make("worker/versions", {"later": NEWEST})
        return self.folder / "worker"

    async def upgrade(self, *folders: Path) -> None:
        # In a thread: it runs an event loop of its own.
        await asyncio.to_thread(command.upgrade, alembic_config(*folders), "heads")

    async def write(self, folder: Path, *folders: Path) -> str | None:
        settings = Settings(migrations=folders)
        return await asyncio.to_thread(_write, settings, folder, "a column")

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(dsn(self.url))
        await connection.execute(statement)
        await connection.close()

    async def revisions(self) -> set[str]:
        connection = await asyncpg.connect(dsn(self.url))
        rows = await connection.fetch("SELECT version_num FROM alembic_version")
        await connection.close()
        return {row["version_num"] for row in rows}


@pytest.fixture
async def place(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setenv("WORKER_DATABASE__URL", database)
    engine = make_engine(Settings().database)
    yield Place(tmp_path, database, engine)
    await engine.dispose()


def below(path: str | None, folders: Sequence[Path]) -> set[str]:
    """The revisions that a new one stands on."""
    assert path is not None
    scripts = ScriptDirectory.from_config(alembic_config(*folders))
    (script,) = [each for each in scripts.walk_revisions() if each.path == path]
    down = script.down_revision
    return set(down) if isinstance(down, tuple | list) else {str(down)}


async def test_a_later_worker_brings_migrations_beside_those_of_ones_own(place: Place) -> None:
    shop = place.make("shop", {"s1": NEWEST, "s2": "s1"})
    await place.upgrade(shop)
    await check_schema(place.engine, [shop])
    folders = (place.later_worker(), shop)
    with pytest.raises(Misconfigured, match=r"is at s2, this worker needs later, s2.*worker migr"):
        await check_schema(place.engine, folders)
    await place.upgrade(*folders)
    await check_schema(place.engine, folders)
    assert await place.revisions() == {"later", "s2"}

    await place.execute("ALTER TABLE users DROP COLUMN rating")
    written = await place.write(shop, *folders)
    assert below(written, folders) == {"later", "s2"}
    with pytest.raises(Misconfigured, match="worker migrate"):
        await check_schema(place.engine, folders)
    await place.upgrade(*folders)
    await check_schema(place.engine, folders)
    await place.execute("SELECT rating FROM users")
    assert await place.write(shop, *folders) is None


async def test_one_that_depends_on_the_workers_is_as_good_as_on_top(place: Place) -> None:
    """Alembic then keeps the worker's own out of its table."""
    shop = place.make("shop", {"s1": None}, depends_on=str(NEWEST))
    await place.upgrade(shop)
    assert await place.revisions() == {"s1"}
    await check_schema(place.engine, [shop])


async def test_one_package_does_not_build_on_another(place: Place) -> None:
    shop, billing = place.make("shop", {"s1": NEWEST}), place.make("billing", {})
    await place.upgrade(shop, billing)
    await place.execute("ALTER TABLE users DROP COLUMN rating")
    written = await place.write(billing, shop, billing)
    assert written is not None
    assert Path(written).parent == billing
    assert below(written, (shop, billing)) == {NEWEST}


def test_a_new_one_goes_where_it_belongs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, billing = place.make("shop", {}), place.make("billing", {})
    later = place.later_worker()
    assert _folder(Settings(migrations=(shop, billing, later))) == billing
    assert _folder(Settings(migrations=(later,))) == later / "versions"
    assert _folder(Settings()) == OWN / "versions"

    installed = Config()
    installed.set_main_option("script_location", str(ROOT / "worker" / "_alembic"))
    monkeypatch.setattr("worker.database.migrations.alembic_config", lambda: installed)
    with pytest.raises(Misconfigured, match="WORKER_MIGRATIONS names no folder"):
        _folder(Settings())
