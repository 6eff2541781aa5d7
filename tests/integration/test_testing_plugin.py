"""The plug-in `worker.testing`: the example of docs/testing.md, on the shop of docs/entities.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import Shop, code_of

pytestmark = pytest.mark.long

pytest_plugins = ["pytester"]


@pytest.mark.timeout(300)
async def test_the_example_of_the_page_passes_and_a_shop_that_counts_twice_is_found_out(
    shop: Shop, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= shop.environment
    await shop.run(environment, "worker", "migrate")
    (example,) = code_of("testing.md")
    (tmp_path / "test_shop.py").write_text(example)
    # The same shop, but every restock takes effect twice, whatever its event says.
    honest = (shop.directory / "shop" / "entities.py").read_text()
    assert honest.count('return Event("product.restocked", product)') == 1
    twice = honest.replace("product.version += 1\n", "product.version += 2\n", 1)
    (tmp_path / "liar.py").write_text(twice)
    liar = example.replace("shop.entities", "liar")
    assert liar != example
    (tmp_path / "test_liar.py").write_text(liar)
    environment["PYTHONPATH"] += f":{tmp_path}"

    options = ("-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", str(tmp_path))
    words = await shop.run(environment, "pytest", *options, code=1)
    assert "1 failed, 1 passed" in words, words
    assert "test_liar.py::test_every_restock_counts_once" in words
    assert "is at version 601, and no event tells of version 2 and 299 more" in words


def test_what_it_needs_and_does_not_find_is_told(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKER_BROKER__URL")
    pytester.makepyfile(
        """
        import sys, pytest

        def test_no_servers(chaos): ...

        class TestNoPika:
            @pytest.fixture
            def worker_environment(self, monkeypatch):
                monkeypatch.setitem(sys.modules, "pika", None)
                return {"WORKER_BROKER__URL": "amqp://", "WORKER_DATABASE__URL": "postgresql://"}

            def test_no_pika(self, chaos): ...
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:randomly")
    result.stdout.fnmatch_lines(["*WORKER_BROKER__URL is not set*"])
    result.stdout.fnmatch_lines(["*needs pika: pip install 'command-worker?testing?'*"])


async def test_it_costs_nothing_who_does_not_use_it(
    shop: Shop, environment: dict[str, str]
) -> None:
    look = (
        "import sys, worker.testing.plugin;"
        "unwanted = {'pika', 'asyncpg', 'pydantic', 'worker.settings.settings'};"
        "print(sorted(unwanted & set(sys.modules)))"
    )
    (shop.directory / "look.py").write_text(look)
    assert await shop.run(environment | shop.environment, "look") == "[]\n"
