"""Puts a choice into numbers and words: pool, overflow, timeout, lanes, prefetch, fleet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from worker.lab.choice import SizeChoice, choose, keeps_up
from worker.lab.findings import FleetLine, Limit, Recommendation, ScalabilityFit
from worker.lab.repeats import Repeats
from worker.lab.results import About, Objective, Result
from worker.lab.sizing import limit_of
from worker.lab.units import show_number, show_seconds, show_share

LEAST_TIMEOUT_SECONDS, MOST_TIMEOUT_SECONDS = 2, 5
TIMEOUT_FACTOR = 10
"""A wait this many times the longest that was seen is no longer a queue, it is an outage."""
DEFAULT_GROUP_SIZE = 256
REPLICAS_SHOWN = (1, 2, 4, 8)
LIMITS: dict[Limit, str] = {
    "pool": "the pool. All its connections were busy while the database was not.",
    "database CPU": "the database's CPU. More connections would share the same cores.",
    "locks": "locks. Connections wait for each other within the database.",
    "event loop": "the worker's event loop. More processes help, more connections do not.",
    "broker": "the broker. Commands wait in the queue though connections are free.",
    "busy machine": "other programs on this machine. Measure again when it is idle.",
    "generator": "the load generator. The worker was never full.",
    "offered load": "nothing but the load that was offered. The pool had room.",
}


def recommend(
    result: Result, groups: Sequence[Repeats], fit: ScalabilityFit | None
) -> Recommendation:
    """The recommendation; raises `NoRecommendation` where the measurement does not allow one."""
    choice, about = choose(result, groups, fit), result.about
    chosen, size = choice.chosen, choice.chosen.setting.pool_size
    overflow, prefetch = _overflow(chosen), _prefetch(chosen, about)
    long = math.ceil(TIMEOUT_FACTOR * chosen.wait.max)
    timeout = min(max(long, LEAST_TIMEOUT_SECONDS), MOST_TIMEOUT_SECONDS)
    variables = {
        "DATABASE__POOL_SIZE": size,
        "DATABASE__MAX_OVERFLOW": overflow,
        "DATABASE__POOL_TIMEOUT_SECONDS": timeout,
        "LANES": size,
        "PREFETCH": prefetch,
    }
    advice = Recommendation(
        pool_size=size,
        max_overflow=overflow,
        pool_timeout_seconds=timeout,
        lanes=size,
        prefetch=prefetch,
        limited_by=_limit(choice, about),
        sentence=_sentence(choice, about, overflow),
        reasons=(),
        env="\n".join(f"WORKER_{name}={value}" for name, value in variables.items()),
        setting=chosen.setting,
    )
    reasons = [
        *_why_this_size(choice, about.objective),
        *_when_full(groups, chosen),
        *_why_the_rest(advice, chosen, fit),
    ]
    advice = advice.model_copy(update={"reasons": tuple(reasons)})
    return _with_fleet(advice, groups, about.objective.replicas)


def _limit(choice: SizeChoice, about: About) -> Limit:
    """What limits the best; or the chosen one, whose pool does all that arrives, in time."""
    if not choice.judges_wait:
        return limit_of(choice.best, about)
    limit = limit_of(choice.chosen, about)
    return "offered load" if limit == "pool" else limit


def _overflow(chosen: Repeats) -> int:
    """For the highest demand that was seen, as much again as the pool at most.

    At least 1, for the health check and the pruning of the ledger beside the lanes.
    """
    setting = chosen.setting
    least = max(1, setting.max_overflow)
    if setting.load == "closed":
        return least
    return max(least, min(_peak_demand(chosen) - setting.pool_size, setting.pool_size))


def _peak_demand(chosen: Repeats) -> int:
    return max(point.pool.busy_max + point.wait.queue_max for point in chosen.points)


def _prefetch(chosen: Repeats, about: About) -> int:
    """For each lane one group in its transaction and one that waits; never less than five commands
    a lane, three of which may be committed and wait for their confirms."""
    group_size = chosen.setting.group_size
    if chosen.setting.path == "engine":  # there it says nothing about the worker's groups
        group_size = int(about.settings.get("WORKER_GROUP_SIZE", DEFAULT_GROUP_SIZE))
    return min(chosen.setting.pool_size * max(2 * group_size, 5), 65_535)


def _with_fleet(advice: Recommendation, groups: Sequence[Repeats], replicas: int) -> Recommendation:
    """How many processes with such a pool the server has room for, where its limit is known:
    replicas x connections + reserve <= max_connections."""
    servers = [point.server for each in groups for point in each.points]
    limit = max((server.max_connections or 0 for server in servers), default=0)
    reserve = max((server.reserved_connections or 0 for server in servers), default=0)
    reserve += max((server.other_connections or 0 for server in servers), default=0)
    each = advice.pool_size + advice.max_overflow
    fleet = [
        FleetLine(replicas=number, connections=need, fits=need <= limit)
        for number in sorted({*REPLICAS_SHOWN, replicas} if limit else ())
        for need in (number * each + reserve,)
    ]
    most = max(limit - reserve, 0) // each if limit else None
    changes = {"reserve": reserve, "fleet": tuple(fleet), "most_replicas": most}
    return advice.model_copy(update=changes)


def _sentence(choice: SizeChoice, about: About, overflow: int) -> str:
    chosen, rate = choice.chosen, choice.chosen.setting.rate_per_second
    words = f"Set pool_size to {chosen.setting.pool_size} and max_overflow to {overflow}: "
    if rate is None:
        return words + f"no pool that was measured does more than {_per_second(choice.best)}."
    objective = show_seconds(about.objective.wait_p99_seconds)
    waits = f"a checkout waits {show_seconds(chosen.wait.p99)} at p99 (objective {objective})"
    if not keeps_up(chosen):
        return words + (
            f"it does {_per_second(chosen)} of the {show_number(rate)}/s that arrive, no pool that "
            f"was measured does more of them, and {waits}."
        )
    return words + (
        f"at {show_number(rate)}/s it does all the work that arrives, so that no bigger pool does "
        f"more, and {waits}."
    )


def _per_second(group: Repeats) -> str:
    return f"{show_number(group.throughput)}/s"


def _why_this_size(choice: SizeChoice, objective: Objective) -> Iterator[str]:
    chosen, best = choice.chosen, choice.best
    own, most = chosen.throughput_interval, best.throughput_interval
    if chosen.setting.load == "open" and keeps_up(chosen):
        rate = show_number(chosen.setting.rate_per_second or 0)
        yield (
            f"{chosen.pool} does all of the {rate}/s that arrive, with {show_number(chosen.busy)} "
            "connections busy on average."
        )
    elif chosen is best:
        yield f"{best.pool} does the most work: {_per_second(best)}."
    else:
        yield (
            f"{chosen.pool} does {show_number(own.low)} to {show_number(own.high)}/s, the best, "
            f"{best.pool}, {show_number(most.low)} to {show_number(most.high)}/s: no difference "
            "that was measured."
        )
    if choice.judges_wait:
        yield (
            f"Its p99 wait is {show_seconds(chosen.wait.p99)}; the objective is "
            f"{show_seconds(objective.wait_p99_seconds)}, of which "
            f"{show_share(objective.headroom)} are to stay free."
        )
    else:
        yield (
            "The load was closed: its clients wait for each other, so the wait was not judged. "
            "Measure it with an open load."
        )
    faults: dict[str, list[str]] = {}
    for group, fault in choice.left_out:
        faults.setdefault(fault, []).append(group.pool)
    yield from (f"{', '.join(pools)}: {fault}." for fault, pools in faults.items())
    if not faults:
        yield f"{chosen.pool} is the smallest pool measured; a smaller one may do."


def _when_full(groups: Sequence[Repeats], chosen: Repeats) -> Iterator[str]:
    """What the chosen pool does when it is full, and whether a bigger one does more then."""
    rate = chosen.setting.rate_per_second
    probes = [each for each in groups if each.setting.load == "closed" and each.is_alike(chosen)]
    full = [each for each in probes if each.setting.connections == chosen.setting.connections]
    if not full or rate is None:
        return
    own = max(full, key=lambda each: each.throughput)
    most = max(probes, key=lambda each: each.throughput)
    times = show_number(own.throughput / rate)
    words = f"Kept full it does {_per_second(own)}: {times} times what arrives"
    if most is own:
        yield f"{words}, and no bigger pool does more."
    else:
        yield f"{words}; kept full, {most.pool} does the most, {_per_second(most)}."


def _why_the_rest(
    advice: Recommendation, chosen: Repeats, fit: ScalabilityFit | None
) -> Iterator[str]:
    if fit is not None and fit.peak_size is not None:
        peak = show_number(fit.peak_size)
        yield f"By the scalability law throughput peaks at {peak} connections."
    yield f"{advice.lanes} lanes: a lane holds one connection at a time."
    if chosen.setting.load == "closed":
        yield f"Overflow {advice.max_overflow}: for the health check and the ledger's pruning."
    else:
        yield (
            f"Overflow {advice.max_overflow}: up to {_peak_demand(chosen)} connections were asked "
            "for at once; overflow is closed when it is given back, so it is for spikes."
        )
    yield (
        f"pool_timeout {advice.pool_timeout_seconds:g} s: the longest wait was "
        f"{show_seconds(chosen.wait.max)}; who waits much longer is better told soon."
    )
    yield f"Prefetch {advice.prefetch}: one group at work and one waiting for each lane."
    yield f"What limits now: {LIMITS[advice.limited_by]}"
