"""Thousands of hostile messages at a real worker: one answer each, and nothing is left of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dev.footprint import Footprint
from dev.fuzz import hostile
from dev.fuzz.hostile import Hostile
from dev.fuzz.schemas import fitting, nearly_fitting
from tests.fuzz.conftest import Station
from tests.support.fakes import REGISTRY
from worker.broker.topology import Topology
from worker.codec.schemas import schema_of

pytestmark = pytest.mark.servers

MOST_GROWN_BYTES = 3_000_000
"""In a round. What leaks does so in each; what a busy machine lets pile up, up to the window, is
kept by the allocator and used again."""
MOST_ROUNDS = 5


async def test_every_hostile_message_gets_one_answer_and_leaves_nothing(station: Station) -> None:
    own_settings = station.harness.settings
    own_queues = Topology(own_settings.namespace, own_settings.broker).queues
    sent = [
        *hostile.bodies(),
        *hostile.properties(),
        *hostile.undecodable(),
        *hostile.attacks(tuple(own_queues)),
    ]
    before, after = await _after(station, sent), await _after(station, sent[::5])
    for _ in range(MOST_ROUNDS):
        before, after = after, await _after(station, sent[::5])
        if after.rss_bytes - before.rss_bytes < MOST_GROWN_BYTES:
            break

    assert await station.stop() == []
    assert (after.tasks, after.threads) == (before.tasks, before.threads)
    # A connection to the database may have come or gone, and one that asked for the pages.
    assert (
        abs((after.open_files - after.connections) - (before.open_files - before.connections)) < 2
    )
    assert after.rss_bytes - before.rss_bytes < MOST_GROWN_BYTES
    _logs_are_clean(station)


async def _after(station: Station, sent: Sequence[Hostile]) -> Footprint:
    """What the worker holds when it has answered all that."""
    await station.harness.rows("TRUNCATE users, orders, command_ledger RESTART IDENTITY")
    verdict = await station.answered(sent)
    assert not verdict.faults
    assert verdict.dead_lettered > len(sent) // 3
    assert verdict.done > len(sent) // 3
    return await station.footprint()


async def test_every_command_out_of_the_schemas_gets_one_answer(station: Station) -> None:
    schemas = [schema_of(REGISTRY, type_) for type_ in REGISTRY.types]
    documents = st.one_of(*map(fitting, schemas), *map(nearly_fitting, schemas))
    sent: list[Hostile] = []

    @settings(
        max_examples=300,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        deadline=None,
    )
    @given(documents)
    def collect(document: dict[str, Any]) -> None:
        sent.append(hostile.hostile(f"out of a schema {len(sent)}", document))

    collect()
    verdict = await station.answered(sent)

    assert not verdict.faults
    assert {"done", "not_found", "conflict", "id_reused", "invalid"} <= verdict.codes.keys()
    assert await station.stop() == []
    _logs_are_clean(station)


def _logs_are_clean(station: Station) -> None:
    """Each line is one JSON object of printable text, and tells of no fault of ours."""
    for line in station.log.read_bytes().splitlines():
        assert line.decode().isprintable()
        assert json.loads(line)["level"] in ("debug", "info"), line
