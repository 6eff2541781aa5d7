"""One schedule, from the bytes that decide it to what is wrong with its end."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from tests.support.interleavings.broker import Broker, ServerChannel
from tests.support.interleavings.commands import MAX_ATTEMPTS, MAX_STATEMENT_FAULTS, Planned
from tests.support.interleavings.database import Database
from tests.support.interleavings.process import Process, seams
from tests.support.interleavings.schedule import Choices, Move, Stuck, World
from tests.support.interleavings.verdict import Record
from worker.broker.topology import Topology
from worker.settings.settings import Settings


@dataclass(frozen=True)
class Plan:
    """What a schedule is made of."""

    workers: int
    lanes: int
    group_size: int
    prefetch: int
    prompt: bool
    """Whether the broker notices the end of a connection before it is asked for a new one."""
    faults: frozenset[str]
    commands: tuple[Planned, ...]
    """In the order in which they are sent; some of them are sent again."""


FAULTS = (
    "kill",
    "stop",
    "stop at once",
    "cut the broker's link",
    "cut the database's link",
    "fail a statement",
    "database away",
    "cancel the consumer",
    "refuse messages",
    "unbind the events",
)
_BEHAVIOURS = ("fine", "fine", "fine", "fine", "refuse", "flaky", "conflict", "hopeless", "broken")


def plan(choices: Choices) -> Plan:
    """Choose one. Each schedule has its own few kinds of faults: they hide each other less so."""
    workers = 1 + (choices.below(4) == 3)
    faults = {FAULTS[choices.below(len(FAULTS))] for _ in range(choices.below(4))}
    poisoned = choices.below(16) == 15
    commands: list[Planned] = []
    for number in range(2 + choices.below(9)):
        chosen = choices.below(256)
        if commands and chosen >= 224:  # sent again
            commands.append(commands[chosen % len(commands)])
            continue
        behaviour = _BEHAVIOURS[choices.below(len(_BEHAVIOURS))]
        if poisoned and number == 1:
            behaviour = "poison"
        key = None if chosen % 8 == 7 else keys()[chosen % 8 % 3]
        id_: str | None = f"id-{number}"
        if chosen % 64 == 63 and behaviour == "fine":
            id_ = None
        elif commands and commands[-1].id and chosen % 64 == 62:
            id_ = commands[-1].id  # of another command
        commands.append(Planned(number, key, behaviour, id_))
    return Plan(
        workers=workers,
        lanes=1 + choices.below(3),
        group_size=1 + choices.below(4),
        prefetch=1 + choices.below(8),
        prompt=choices.below(4) != 3,
        faults=frozenset(faults),
        commands=tuple(commands),
    )


@cache
def keys() -> list[str]:
    """Names whose hashes are 0, 1 and 2 modulo 6: in each process the same lanes."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < 3:
        name = f"key-{number}"
        if hash(name) % 6 < 3:
            found.setdefault(hash(name) % 6, name)
        number += 1
    return [found[each] for each in range(3)]


@cache
def settings_for(lanes: int, group_size: int, prefetch: int) -> Settings:
    """The settings of a worker."""
    return Settings.model_validate(
        {
            "lanes": lanes,
            "group_size": group_size,
            "prefetch": prefetch,
            "max_attempts": MAX_ATTEMPTS,
            "broker": {"url": "amqp://nowhere"},
            "database": {"url": "postgresql+asyncpg://nowhere/x"},
        }
    )


class Machine:
    """The world of one schedule."""

    def __init__(self, given: bytes) -> None:
        choices = Choices(given)
        self.plan = plan(choices)
        self.world = World(choices)
        self.world.fault_rate = 4 + choices.below(20)
        self.world.faults_left = 1 + choices.below(6)
        self.settings = settings_for(self.plan.lanes, self.plan.group_size, self.plan.prefetch)
        topology = Topology(self.settings.namespace, self.settings.broker)
        self.broker = Broker(
            self.world,
            commands=topology.commands,
            events=topology.events,
            dead_letters=topology.dead_letters,
        )
        self.database = Database(self.world)
        self.record = Record(self.plan, self.world, self.broker, self.database)
        self.attempts: Counter[int] = Counter()
        self.to_send = deque(self.plan.commands)
        self.processes: list[Process] = []
        self.finished = asyncio.Event()
        self.world.sources = [self._sends, self.broker.moves, self.database.moves]
        moves = {
            "kill": self._kill,
            "stop": self._stop,
            "stop at once": self._stop_at_once,
            "cut the broker's link": self._cut_broker,
            "cut the database's link": self._cut_database,
            "fail a statement": self._fail_a_statement,
            "database away": self._database_away,
            "cancel the consumer": self._cancel_consumer,
            "refuse messages": self._refuse,
            "unbind the events": self._unbind,
        }
        self.world.faults = [moves[name] for name in sorted(self.plan.faults)]
        self._statement_faults = 0
        self._seed = choices.below(256)

    def run(self) -> list[str]:
        """Run it to its end; return what is wrong, which should be nothing."""
        with (
            seams(self.world, self._seed),
            asyncio.Runner(loop_factory=lambda: self.world.loop) as runner,
        ):
            try:
                runner.run(self._live())
            except Stuck as error:
                self.record.complain(f"{error}; not ready: {self._not_ready()}")
            finally:
                self.world.is_over = True
        return self.record.complaints()

    async def _live(self) -> None:
        for _ in range(self.plan.workers):
            self._start()
        await self.finished.wait()
        self.world.faults_left = 0
        self.record.note_finished()
        last = list(self.processes)
        for process in last:
            process.stop()
        await asyncio.wait([process.task for process in last])

    def _start(self) -> None:
        process = Process(
            self.world,
            self.broker,
            self.database,
            self.settings,
            self.attempts,
            prompt=self.plan.prompt,
            on_end=self._ended,
        )
        self.processes.append(process)

    def _ended(self, process: Process) -> None:
        """A process has ended: its parent starts another one."""
        if self.world.is_over:
            return
        self.processes.remove(process)
        task = process.task
        if task.done() and not task.cancelled() and task.exception():
            self.record.complain(f"a worker ended by itself: {task.exception()!r}")
        if not self.finished.is_set():
            self._start()

    def _not_ready(self) -> list[str]:
        parts = [part for each in self.processes for part in each.parts]
        return [f"{part.name}: {part.reason}" for part in parts if not part.ready]

    def _sends(self) -> Iterator[Move]:
        if self.to_send:
            yield self._send
        elif not self.finished.is_set() and self._is_quiet:
            self.finished.set()

    @property
    def _is_quiet(self) -> bool:
        return not self.broker.waiting and not self.broker.unacknowledged

    def _send(self) -> None:
        command = self.to_send.popleft()
        self.world.tell("sent", str(json.loads(command.body)))
        self.broker.put(command.body)

    def _pick(self, number: int) -> int:
        return self.world.choices.below(number)

    def _kill(self) -> None:
        self._some_process("kill", Process.kill)

    def _stop(self) -> None:
        self._some_process("stop", Process.stop)

    def _stop_at_once(self) -> None:
        self._some_process("stop at once", Process.stop_at_once)

    def _some_process(self, what: str, happens: Callable[[Process], None]) -> None:
        if self.processes:
            self.world.tell(what)
            self.record.is_disturbed = True
            happens(self.processes[self._pick(len(self.processes))])

    def _cut_broker(self) -> None:
        if self.broker.links:
            connection = self.broker.links[self._pick(len(self.broker.links))]
            self.world.tell("cut the broker's link", f"of {connection.name!r}")
            self.record.is_disturbed = True
            connection.link.cut(arriving=self._pick(connection.link.under_way + 1))
            if self.plan.prompt:
                connection.link.notice_now()

    def _cut_database(self) -> None:
        connections = self.database.connections
        if connections:
            link = connections[self._pick(len(connections))].link
            self.world.tell("cut the database's link")
            self.record.is_disturbed = True
            link.cut(arriving=self._pick(2))

    def _fail_a_statement(self) -> None:
        if self._statement_faults < MAX_STATEMENT_FAULTS:
            self._statement_faults += 1
            self.world.tell("fail a statement")
            self.record.is_disturbed = True
            self.database.faults += 1

    def _database_away(self) -> None:
        self.world.tell("database away")
        self.record.is_disturbed = True
        self.database.go_away()

    def _cancel_consumer(self) -> None:
        channels = [each for each in self._channels() if each.consumers]
        if channels:
            self.world.tell("cancel the consumer")
            self.record.is_disturbed = True
            channels[self._pick(len(channels))].cancel_by_itself()

    def _channels(self) -> Iterator[ServerChannel]:
        for connection in self.broker.links:
            yield from connection.channels

    def _refuse(self) -> None:
        self.broker.refusals += 1 + self._pick(3)
        self.world.tell("refuse messages", f"the next {self.broker.refusals}")

    def _unbind(self) -> None:
        self.world.tell("unbind the events")
        self.broker.events_bound = False
