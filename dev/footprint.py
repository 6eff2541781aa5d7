"""What a worker takes up: memory, tasks, files and connections, as `/metrics` and Linux tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Footprint:
    """One look at a worker."""

    rss_bytes: int
    tasks: int
    open_files: int
    """File handles, sockets included."""
    connections: int
    """Connections to the database."""
    threads: int


def health_address(log: Path) -> str:
    """Where a worker that writes this log serves its pages; the last one of several."""
    lines = [json.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
    (*_, url) = [line["url"] for line in lines if line.get("event") == "health pages"]
    return str(url).removesuffix("/readyz")


async def footprint(pid: int, address: str) -> Footprint:
    """Look at the worker with that process id, whose pages are at `address`."""
    async with aiohttp.ClientSession() as client, client.get(f"{address}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    metrics: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            metrics[sample.name] = metrics.get(sample.name, 0) + sample.value
    process = psutil.Process(pid)
    return Footprint(
        rss_bytes=process.memory_info().rss,
        tasks=round(metrics["worker_event_loop_tasks"]),
        open_files=process.num_fds(),
        connections=round(metrics["db_client_connections"]),
        threads=process.num_threads(),
    )


async def readiness(address: str) -> tuple[int, str]:
    """The status of `/readyz`, and what it says."""
    async with aiohttp.ClientSession() as client, client.get(f"{address}/readyz") as answer:
        return answer.status, await answer.text()
