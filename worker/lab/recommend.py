"""Puts a choice into numbers and words: pool, overflow, timeout, lanes, prefetch, fleet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from worker.lab.choice import Choice, choose, keeps_up
from worker.lab.findings import Limit, Recommendation, ScalabilityFit
from worker.lab.fleet import fleet_of
from worker.lab.repeats import Repeats
from worker.lab.results import About, Result
from worker.lab.sizing import limit_of
from worker.lab.units import show_number, show_seconds, show_share

LEAST_TIMEOUT_SECONDS, MOST_TIMEOUT_SECONDS = 2, 5
TIMEOUT_FACTOR = 10
"""A wait this many times the longest that was seen is no longer a queue, it is an outage."""
DEFAULT_GROUP_SIZE = 256


def recommend(
    result: Result, groups: Sequence[Repeats], fit: ScalabilityFit | None
) -> Recommendation:
    """The recommendation; raises `NoRecommendation` where the measurement does not allow one."""
    choice, about = choose(result, groups, fit), result.about
    size, overflow = choice.chosen.setting.pool_size, _overflow(choice.chosen)
    timeout, prefetch = _timeout(choice.chosen), _prefetch(choice.chosen, about)
    fleet = fleet_of(groups, size + overflow, about.objective.replicas)
    limit = _limit(choice, about)
    return Recommendation(
        pool_size=size,
        max_overflow=overflow,
        pool_timeout_seconds=timeout,
        lanes=size,
        prefetch=prefetch,
        limited_by=limit,
        sentence=_sentence(choice, about, overflow),
        reasons=(
            *_why_this_size(choice, about),
            *_capacity(groups, choice.chosen),
            *_peak(fit),
            *_why_the_rest(choice.chosen, overflow, timeout, prefetch),
            f"What limits now: {LIMITS[limit]}",
        ),
        reserve=fleet.reserve,
        fleet=fleet.lines,
        most_replicas=fleet.most_replicas,
        env="\n".join(
            (
                f"WORKER_DATABASE__POOL_SIZE={size}",
                f"WORKER_DATABASE__MAX_OVERFLOW={overflow}",
                f"WORKER_DATABASE__POOL_TIMEOUT_SECONDS={timeout}",
                f"WORKER_LANES={size}",
                f"WORKER_PREFETCH={prefetch}",
            )
        ),
        setting=choice.chosen.setting,
    )


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


def _limit(choice: Choice, about: About) -> Limit:
    """What limits the best; or the chosen one, whose pool does all that arrives, in time."""
    if not choice.comparison.judges_wait:
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


def _timeout(chosen: Repeats) -> int:
    long = math.ceil(TIMEOUT_FACTOR * chosen.wait.max)
    return min(max(long, LEAST_TIMEOUT_SECONDS), MOST_TIMEOUT_SECONDS)


def _prefetch(chosen: Repeats, about: About) -> int:
    """For each lane one group in its transaction and one that waits; never less than five commands
    a lane, three of which may be committed and wait for their confirms."""
    setting = chosen.setting
    group_size = setting.group_size
    if setting.path == "engine":  # there it says nothing about the worker's groups
        group_size = int(about.settings.get("WORKER_GROUP_SIZE", DEFAULT_GROUP_SIZE))
    return min(setting.pool_size * max(2 * group_size, 5), 65_535)


def _sentence(choice: Choice, about: About, overflow: int) -> str:
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
        f"at {show_number(rate)}/s {waits}, and at this rate no bigger pool does more work."
    )


def _per_second(group: Repeats) -> str:
    return f"{show_number(group.throughput)}/s"


def _why_this_size(choice: Choice, about: About) -> list[str]:
    chosen, objective = choice.chosen, about.objective
    reasons = [_as_good_as_the_best(choice)]
    if choice.comparison.judges_wait:
        reasons.append(
            f"Its p99 wait is {show_seconds(chosen.wait.p99)}; the objective is "
            f"{show_seconds(objective.wait_p99_seconds)}, "
            f"of which {show_share(objective.headroom)} are to stay free."
        )
    else:
        reasons.append(
            "The load was closed: its clients wait for each other, so the wait was not judged. "
            "Measure it with an open load."
        )
    return reasons + _smaller_ones(choice)


def _peak(fit: ScalabilityFit | None) -> list[str]:
    if fit is None or fit.peak_size is None:
        return []
    return [f"By the scalability law throughput peaks at {show_number(fit.peak_size)} connections."]


def _as_good_as_the_best(choice: Choice) -> str:
    chosen, best = choice.chosen, choice.best
    if chosen.setting.load == "open" and keeps_up(chosen):
        return (
            f"{chosen.pool} does all of the {show_number(chosen.setting.rate_per_second or 0)}/s "
            f"that arrive, with {show_number(chosen.busy)} connections busy on average."
        )
    if chosen is best:
        return f"{best.pool} does the most work: {_per_second(best)}."
    own, most = chosen.throughput_interval, best.throughput_interval
    return (
        f"{chosen.pool} does {show_number(own.low)} to {show_number(own.high)}/s, the best, "
        f"{best.pool}, {show_number(most.low)} to {show_number(most.high)}/s: no difference "
        "that was measured."
    )


def _capacity(groups: Sequence[Repeats], chosen: Repeats) -> list[str]:
    """What the chosen pool does when it is full, and whether a bigger one does more then."""
    rate = chosen.setting.rate_per_second
    probes = [each for each in groups if each.setting.load == "closed" and _is_alike(each, chosen)]
    full = [each for each in probes if each.setting.connections == chosen.setting.connections]
    if not full or rate is None:
        return []
    own = max(full, key=lambda each: each.throughput)
    most = max(probes, key=lambda each: each.throughput)
    words = (
        f"Kept full it does {_per_second(own)}: {show_number(own.throughput / rate)} times what "
        "arrives"
    )
    if most is own:
        return [f"{words}, and no bigger pool does more."]
    return [f"{words}; kept full, {most.pool} does the most, {_per_second(most)}."]


def _is_alike(one: Repeats, other: Repeats) -> bool:
    """Whether the two differ in their pool and load alone."""
    left, right = one.setting, other.setting
    return (left.group_size, left.path) == (right.group_size, right.path)


def _smaller_ones(choice: Choice) -> list[str]:
    if not choice.left_out:
        return [f"{choice.chosen.pool} is the smallest pool measured; a smaller one may do."]
    faults: dict[str, list[str]] = {}
    for group, fault in choice.left_out:
        faults.setdefault(fault, []).append(group.pool)
    return [f"{', '.join(pools)}: {fault}." for fault, pools in faults.items()]


def _why_the_rest(chosen: Repeats, overflow: int, timeout: int, prefetch: int) -> list[str]:
    reasons = [f"{chosen.setting.pool_size} lanes: a lane holds one connection at a time."]
    if chosen.setting.load == "open":
        reasons.append(
            f"Overflow {overflow}: up to {_peak_demand(chosen)} connections were "
            "asked for at once; overflow is closed when it is given back, so it is for spikes."
        )
    else:
        reasons.append(f"Overflow {overflow}: for the health check and the ledger's pruning.")
    reasons.append(
        f"pool_timeout {timeout} s: the longest wait was {show_seconds(chosen.wait.max)}; "
        "who waits much longer is better told soon."
    )
    reasons.append(f"Prefetch {prefetch}: one group at work and one waiting for each lane.")
    return reasons
