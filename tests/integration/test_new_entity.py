"""A third entity, straight from docs/entities.md, in a package of its own."""

from __future__ import annotations

from pathlib import Path

from dev.worker_processes import WorkerProcess
from tests.integration.conftest import Shop
from tests.support.harness import Harness


async def test_the_entity_of_the_page_works(
    shop: Shop, harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= shop.environment
    await shop.run(environment, "worker", "migrate")
    again = await shop.run(environment, "worker", "migration", "more")
    assert again == "nothing to write: the database is as the entities need it\n"

    worker = WorkerProcess(environment, tmp_path / "worker.log")
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
    assert stocked.data["created_on"] == created.data["created_on"] < stocked.data["updated_on"]
    assert refused.routing_key == "product.sell.rejected"
    assert refused.data["detail"] == "only 10 left"
    assert (sold.data["stock"], sold.data["version"]) == (6, 3)
    assert user.routing_key == "user.created"
    (row,) = await harness.rows("SELECT * FROM products")
    assert row["stock"] == 6
    assert row["updated_on"].isoformat() == sold.data["updated_on"].replace("Z", "+00:00")
