"""G1 to G3 and G6 while a standby takes over from the primary, which dies or turns read-only."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from dev.databases import execute
from dev.servers.postgres import PrivatePostgres
from dev.servers.standby import PrivateStandby
from tests.chaos.test_outages import BACK_WITHIN, not_ready
from tests.conftest import make_settings
from tests.support.harness import Harness, eventually
from tests.support.lab import rows
from tests.support.private import lent
from tests.support.steady import Steady

STEADY = 40
"""Commands between one step and the next."""


@dataclass(frozen=True)
class Pair:
    """A primary, and a standby without which it confirms no COMMIT."""

    primary: PrivatePostgres
    standby: PrivateStandby

    @property
    def url(self) -> str:
        """Both, as the worker's setting wants them."""
        ports = f"{self.primary.port},{self.standby.port}"
        return f"postgresql+asyncpg://worker@/worker?host=127.0.0.1,127.0.0.1&port={ports}"


@pytest.fixture
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with lent(PrivatePostgres(tmp_path_factory.mktemp("primary"))) as primary:
        standby = PrivateStandby(tmp_path_factory.mktemp("standby"), primary=primary.port)
        await asyncio.to_thread(standby.start)
        await execute(primary.url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        await execute(primary.url, "SELECT pg_reload_conf()")
        yield Pair(primary, standby)
        await asyncio.to_thread(standby.kill)
        await asyncio.to_thread(standby.remove)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("end", ["killed", "read-only"])
async def test_the_standby_is_promoted_under_load(pair: Pair, broker_url: str, end: str) -> None:
    async with Harness(make_settings(broker_url, pair.url)) as harness:
        steady = Steady([broker_url], harness.settings.namespace)
        async with harness.worker() as service:
            async with steady.sending():
                await answered(harness, await steady.after(STEADY))
                if end == "killed":
                    await asyncio.to_thread(pair.primary.kill)
                else:
                    # A planned change of roles may leave every connection to it open.
                    await execute(pair.primary.url, READ_ONLY)
                    await execute(pair.primary.url, "SELECT pg_reload_conf()")
                await not_ready(service, "database")
                await asyncio.to_thread(pair.standby.promote)
                promoted = time.monotonic()
                await answered(harness, await steady.after(STEADY))
                await eventually(lambda: service.health.ready, within=BACK_WITHIN)
                assert time.monotonic() - promoted < BACK_WITHIN
            await answered(harness, *steady.confirmed)
        await nothing_is_lost_and_nothing_twice(harness, pair, steady)


READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"


async def answered(harness: Harness, *ids: str) -> None:
    """Wait until these commands have their events."""
    await eventually(
        lambda: set(ids) <= {event.command_id for event in harness.events},
        within=BACK_WITHIN + 10,
    )


async def nothing_is_lost_and_nothing_twice(harness: Harness, pair: Pair, steady: Steady) -> None:
    ids = set(steady.confirmed)
    bodies: dict[str | None, set[bytes]] = defaultdict(set)
    for event in harness.events:
        bodies[event.command_id].add(event.body)
    assert bodies.keys() == ids
    assert {len(distinct) for distinct in bodies.values()} == {1}
    assert {event.routing_key for event in harness.events} == {"user.created"}
    assert await harness.dead_letters_so_far() == []

    kept = await rows(pair.standby.url, "SELECT username FROM users")
    assert sorted(username for (username,) in kept) == sorted(ids)
