"""Thousands of hostile messages at a real worker: one answer each, and nothing is left of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz import hostile
from tests.fuzz.conftest import Station
from tests.fuzz.hostile import Hostile
from tests.fuzz.schemas import fitting, nearly_fitting
from tests.unit.fakes import REGISTRY
from worker.broker.topology import Topology
from worker.cli.schemas import schema_of

pytestmark = pytest.mark.servers

MOST_GROWN_BYTES = 6_000_000
"""In the last third of the test. It grows by 1 MB a round at first, and stays at 115 in the end."""


async def test_every_hostile_message_gets_one_answer_and_leaves_nothing(station: Station) -> None:
    own_settings = station.harness.settings
    own_queues = Topology(own_settings.namespace, own_settings.broker).queues
    sent = [
        *hostile.bodies(),
        *hostile.properties(),
        *hostile.undecodable(),
        *hostile.attacks(tuple(own_queues)),
    ]
    footprints = []
    for part in (sent, sent[::5], sent[::5]):
        await station.harness.rows("TRUNCATE users, orders, command_ledger RESTART IDENTITY")
        verdict = await station.answered(part)
        assert not verdict.faults
        assert verdict.dead_lettered > len(part) // 3
        assert verdict.done > len(part) // 3
        footprints.append(await station.footprint())

    assert await station.stop() == []
    _, before, after = footprints
    assert (after.tasks, after.threads) == (before.tasks, before.threads)
    # A connection to the database may have come or gone, and one that asked for the pages.
    assert (
        abs((after.open_files - after.connections) - (before.open_files - before.connections)) < 2
    )
    assert after.rss_bytes - before.rss_bytes < MOST_GROWN_BYTES
    _logs_are_clean(station)


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
