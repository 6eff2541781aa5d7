"""A third entity, straight from docs/entities.md, in a package of its own."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.chaos.processes import WorkerProcess
from tests.harness import Harness

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The migrations of this project, and beside them a package `shop` from the page."""
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    page = (ROOT / "docs" / "entities.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "entities.py").write_text(code)
    return tmp_path


async def run(environment: dict[str, str], cwd: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_the_entity_of_the_page_works(
    checkout: Path, harness: Harness, environment: dict[str, str]
) -> None:
    environment |= {
        "WORKER_ENTITIES": "worker.entities,shop.entities",
        "PYTHONPATH": str(checkout),
        "WORKER_MIGRATIONS": str(checkout / "alembic"),
    }
    await run(environment, checkout, "alembic", "revision", "--autogenerate", "-m", "add products")
    await run(environment, checkout, "alembic", "upgrade", "head")
    await run(environment, checkout, "alembic", "check")

    worker = WorkerProcess(environment, checkout / "worker.log")
    await worker.start()
    try:
        await harness.subscribe()
        created = await harness.ask("product.create", data={"sku": "tea", "price_cents": 450})
        tea = {"sku": "tea"}
        stocked = await harness.ask("product.restock", target=tea, data={"quantity": 10})
        refused = await harness.ask("product.sell", target=tea, data={"quantity": 11})
        sold = await harness.ask("product.sell", target=tea, data={"quantity": 4})
        user = await harness.ask("user.create", data={"username": "a", "email": "a@b.de"})
        assert await worker.stop() == 0
    finally:
        await worker.end()

    assert created.json["subject"] == f"product/{created.data['id']}"
    assert stocked.data["stock"] == 10
    assert refused.routing_key == "product.sell.rejected"
    assert refused.data["detail"] == "only 10 left"
    assert (sold.data["stock"], sold.data["version"]) == (6, 3)
    assert user.routing_key == "user.created"
    (row,) = await harness.rows("SELECT * FROM products")
    assert row["stock"] == 6
