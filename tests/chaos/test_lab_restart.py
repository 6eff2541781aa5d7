"""The lab's scenario `restart` with a server that really restarts in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dev.servers.postgres import PrivatePostgres
from tests.conftest import make_settings
from tests.integration.test_lab_service import point_of
from tests.support.harness import eventually
from worker.lab.scenario import Scenario
from worker.lab.scenario_files import load_scenario

pytestmark = pytest.mark.long


def restarting(flag: Path, path: str) -> Scenario:
    """The scenario, with a command that waits until this test has restarted the server."""
    return load_scenario(
        "restart",
        [
            f"path={path}",
            "load.warm_up_seconds=1",
            "load.measure_seconds=9",
            "load.rate_per_second=30",
            "restart.at_seconds=2",
            f'restart.command="touch {flag}; while test -e {flag}; do sleep 0.05; done"',
        ],
    )


@pytest.mark.parametrize("path", ["engine", "service"])
async def test_a_real_restart_is_measured_and_survived(
    own_database: PrivatePostgres, broker_url: str, tmp_path: Path, path: str
) -> None:
    await asyncio.to_thread(own_database.start)
    settings = make_settings(broker_url, own_database.url)
    flag = tmp_path / "restart-now"
    measuring = asyncio.create_task(point_of(restarting(flag, path), settings, tmp_path / "out"))
    await eventually(lambda: measuring.done() or flag.exists(), within=40)
    assert not measuring.done()
    await asyncio.to_thread(own_database.restart)
    flag.unlink()
    point = await measuring

    assert not point.partial
    assert point.pool.invalidated > 0
    assert point.pool.still_out == 0
    # All is well again in the end, and only its own work was lost on the way.
    assert point.samples[-1].throughput_per_second > 15
    assert point.samples[-1].errors == 0
    if path == "engine":
        assert 0 < point.load.failed < point.load.intended / 2
        assert set(point.errors) & {"57P01", "57P03", "ConnectionRefusedError"}
    else:
        assert point.errors == {}
        assert point.load.completed == point.load.intended
