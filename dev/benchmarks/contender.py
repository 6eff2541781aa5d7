"""What a contender is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from dev.benchmarks.arena import Arena
from dev.benchmarks.commands import CREATE, Workload

ROOT = Path(__file__).resolve().parents[2]


class Queue(Enum):
    """Where a contender's commands wait."""

    WORKER = "quorum, as the worker declares it"
    CLASSIC = "classic, durable"
    QUORUM = "quorum"
    OWN = "as the library declares it; filled by the library too"
    NONE = "in the database's client, which has no broker"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A program that takes commands, writes rows and publishes events; started as a process."""

    name: str
    """For `--only`, and the key in `benchmarks.json`."""
    label: str
    argv: tuple[str, ...]
    """The command line; its first word is a program of a virtual environment."""
    queue: Queue = Queue.CLASSIC
    fill: tuple[str, ...] = ()
    """With `Queue.OWN`: reads commands from stdin, one a line, and publishes them as tasks."""
    environment: Mapping[str, str] = field(default_factory=dict)
    workload: Workload = CREATE
    writes: bool = True
    """Whether it writes rows at all."""
    yardstick: bool = False
    """It does not do the whole work, but shows a limit."""
    by_name: bool = False
    """It answers a question of its own, and takes part only where it is named."""
    share: float = 1.0
    """Its part of `--commands`: a slow one gets fewer, so that all take a few seconds."""
    leftovers: tuple[str, ...] = ()
    """What it puts behind the queue's name for further queues and exchanges that it makes."""
    processes: int = 1

    def queue_of(self, arena: Arena) -> str:
        """The name of the queue that its commands wait in."""
        return arena.topology.commands if self.queue is Queue.WORKER else arena.queue
