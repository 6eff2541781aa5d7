"""What the commands of the benchmarks, and the soak, have in common."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil
import pytest

from dev.benchmarks.contender import ROOT
from tests.support.harness import eventually
from tests.support.lab import rows

pytestmark = pytest.mark.long

BENCHMARKS = {
    "dev.benchmarks": ("--only=worker", "--commands=20000"),
    "dev.benchmarks.growth": ("--part=lanes", "--commands=20000"),
    "dev.benchmarks.latency": ("--only=worker", "--seconds=600"),
    "dev.soak": ("--commands=200000",),
}


@pytest.mark.servers
@pytest.mark.parametrize("module", BENCHMARKS)
async def test_sigterm_leaves_neither_contender_nor_database(
    module: str, broker_url: str, server_url: str
) -> None:
    environment = {
        **os.environ,
        "WORKER_BROKER__URL": broker_url,
        "WORKER_DATABASE__URL": server_url,
        "COVERAGE_PROCESS_CONFIG": "",
    }
    benchmark = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *BENCHMARKS[module], cwd=ROOT, env=environment
    )
    processes = [psutil.Process(benchmark.pid)]
    try:
        contenders = await eventually(lambda: processes[0].children(recursive=True), within=60)
        processes += contenders
        benchmark.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(benchmark.wait(), 60) == 130
        assert not [each for each in contenders if each.is_running()]
        query = "SELECT datname::text FROM pg_database WHERE starts_with(datname, 'bench_')"
        assert not await rows(server_url, query)
    finally:
        for process in processes:
            if process.is_running():
                process.kill()
