"""One turn: one contender, one way of arrival, one rate."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from dev.benchmarks.arena import Place, fresh_arena
from dev.benchmarks.commands import CREATE
from dev.benchmarks.contender import ROOT, Contender
from dev.benchmarks.drain import fill
from dev.benchmarks.latency.sender import Order, Sent
from dev.benchmarks.observer import Observer, observe
from dev.benchmarks.process import ContenderFailed, running
from worker.lab.arrivals import Schedule
from worker.lab.durations import Durations, Model, durations_from

Arrivals = Literal["constant", "poisson"]

GRACE_SECONDS = 2.0
"""How long after the last command answers are waited for."""

KEPT_UP = 0.95
"""A contender keeps up if it answers this part of what comes, while it comes."""


class Turn(Model):
    """What one turn has shown."""

    round: int
    contender: str
    arrivals: str
    rate: float
    """Commands per second that were to be sent."""
    seconds: float
    """How long was measured, after the warm-up."""
    achieved: float | None = None
    """Events per second while commands came."""
    unanswered: int = 0
    """Commands without an event in the end; their latency counts as the time until then."""
    latency: Durations | None = None
    """From the intended time of a command to its event."""
    lateness: Durations | None = None
    """From the intended time of a command to its sending."""
    failure: str | None = None

    @property
    def kept_up(self) -> bool:
        """Whether what came was answered as fast as it came."""
        return self.achieved is not None and self.achieved >= KEPT_UP * self.rate


async def take(
    contender: Contender, place: Place, schedule: Schedule, *, number: int, seed: int
) -> Turn:
    """Start the contender on fresh queues and tables, load it, and look at the answers.

    Args:
        number: of the round.
        seed: of the commands.
    """
    turn = Turn(
        round=number,
        contender=contender.name,
        arrivals=schedule.arrivals,
        rate=schedule.rate_per_second,
        seconds=schedule.measure_seconds,
    )
    # One more, which is sent first and shows that the contender is up.
    *bodies, probe = CREATE.bodies(sum(1 for _ in schedule.times()) + 1, seed=seed)
    try:
        async with fresh_arena(place, leftovers=contender.leftovers) as arena:
            await fill(contender, arena, [probe])
            async with observe(arena) as observer, running(contender, arena) as process:
                await process.while_it_runs(observer.reached(1))
                queue = contender.queue_of(arena)
                order = Order(arena.broker_url, queue, schedule, seed, len(bodies))
                sent = await process.while_it_runs(send(order))
                await process.while_it_runs(_answers(observer, len(bodies) + 1))
                until = time.monotonic()
    except ContenderFailed as error:
        return turn.model_copy(update={"failure": str(error)})
    arrived = first_arrivals(observer.times, observer.bodies)
    answers = [arrived.get(json.loads(body)["id"]) for body in bodies]
    return measured(turn, schedule, sent, answers=answers, until=until)


def measured(
    turn: Turn,
    schedule: Schedule,
    sent: Sent,
    *,
    answers: Sequence[float | None],
    until: float,
) -> Turn:
    """The turn with what follows from the times of its answers, the warm-up left out."""
    begin = sent.begin + schedule.warm_up_seconds
    end = begin + schedule.measure_seconds
    counted = [
        (sent.begin + offset, answer, late)
        for offset, answer, late in zip(schedule.times(), answers, sent.lateness, strict=True)
        if offset >= schedule.warm_up_seconds
    ]
    in_time = sum(begin <= answer < end for answer in answers if answer is not None)
    return turn.model_copy(
        update={
            "achieved": in_time / schedule.measure_seconds,
            "unanswered": sum(answer is None for _, answer, _ in counted),
            "latency": durations_from(
                (until if answer is None else answer) - intended for intended, answer, _ in counted
            ),
            "lateness": durations_from(late for _, _, late in counted),
        }
    )


def first_arrivals(times: Sequence[float], bodies: Sequence[bytes]) -> dict[str, float]:
    """When each command's event came, by the command's id."""
    arrived: dict[str, float] = {}
    for at, body in zip(times, bodies, strict=True):
        arrived.setdefault(json.loads(body)["commandid"], at)
    return arrived


async def send(order: Order) -> Sent:
    """Have another process send them; an interrupted one is not left behind."""
    argv = (sys.executable, "-m", "dev.benchmarks.latency.sender")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, cwd=ROOT)
    try:
        written, _ = await process.communicate(order.as_json().encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"the sender ended with exit code {process.returncode}")
    return Sent(**json.loads(written))


async def _answers(observer: Observer, count: int) -> None:
    try:
        async with asyncio.timeout(GRACE_SECONDS):
            await observer.reached(count)
    except TimeoutError:
        return  # what did not come is counted, and is what was to be found out


def schedules(
    arrivals: Sequence[Arrivals],
    rates: Sequence[float],
    *,
    seconds: float,
    warm_up: float,
    seed: int,
) -> list[Schedule]:
    """Every way of arrival at every rate."""
    plain = Schedule("constant", 1, warm_up, seconds, seed)
    return [
        replace(
            plain, arrivals="poisson" if kind == "poisson" else "constant", rate_per_second=rate
        )
        for kind in arrivals
        for rate in rates
    ]
