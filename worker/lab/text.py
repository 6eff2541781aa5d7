"""What page, summary and terminal say in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from worker.lab.findings import CheckResult
from worker.lab.repeats import Repeats, by_setting
from worker.lab.results import Objective, Result
from worker.lab.setting import Setting
from worker.lab.units import counted, show_number, show_seconds, show_share

Tone = Literal["good", "warning", "bad", "note"]
"""`warning`: the answer is to be read with care. `note`: it concerns other settings alone."""
TONES: tuple[Tone, ...] = ("note", "warning", "bad")
SETTINGS_NAMED = 3


class Headline(NamedTuple):
    """The first thing that is read."""

    good: bool
    words: str


class FailedCheck(NamedTuple):
    """A check that failed, of one setting or of several of a kind."""

    name: str
    settings: tuple[str, ...]
    tone: Tone
    words: str
    """Of the one that is the furthest out of bounds."""

    @property
    def where(self) -> str:
        """The settings, the first few by name."""
        more = len(self.settings) - SETTINGS_NAMED
        named = "; ".join(self.settings[:SETTINGS_NAMED])
        return f"{named}; and {more} more" if more > 0 else named

    def __str__(self) -> str:
        worst = ", at worst" if len(self.settings) > 1 else ""
        return f"{self.name} ({self.where}){worst}: {self.words}"


def title_of(result: Result) -> str:
    """What was run."""
    return f"Pool lab: {result.kind}, {result.about.scenario}"


def headline(result: Result) -> Headline:
    """The answer, or why there is none."""
    if result.recommendation is not None:
        return Headline(True, result.recommendation.sentence)
    if result.kind == "capacity" and not result.partial:
        return _capacity(result)
    if result.kind == "run" and result.points and not result.partial:
        return _verdict(result)
    return Headline(False, result.no_recommendation_because or "The result was not analysed.")


def _capacity(result: Result) -> Headline:
    objective = objective_words(result.about.objective)
    if result.capacity_per_second is not None:
        rate = show_number(result.capacity_per_second)
        words = f"This pool keeps the objective ({objective}) up to {rate} arrivals a second."
        return Headline(True, words)
    lowest = min((point.setting.rate_per_second or 0 for point in result.points), default=0)
    return Headline(
        False,
        f"This pool does not keep the objective ({objective}) at any rate that was tried, down to "
        f"{show_number(lowest)} arrivals a second.",
    )


def objective_words(objective: Objective) -> str:
    """What was asked for: `wait p99 20 ms`."""
    wait, latency = objective.wait_p99_seconds, objective.latency_p99_seconds
    asked = [] if latency is None else [f"latency p99 {show_seconds(latency)}"]
    if wait != latency:  # else it only follows: nobody waits longer than the whole takes
        asked.append(f"wait p99 {show_seconds(wait)}")
    return ", ".join(asked)


def _verdict(result: Result) -> Headline:
    """Of one setting there is nothing to choose, but whether it keeps the objective."""
    group, objective = by_setting(result.points)[0], result.about.objective
    pool, setting = f"A pool of {group.pool}", group.setting
    trusted = not failed_checks(result)
    if setting.load == "closed":
        clients = counted(setting.clients or 0, "client")
        return Headline(trusted, f"{pool} does {show_number(group.throughput)}/s for {clients}.")
    kept = group.wait.p99 <= objective.wait_p99_seconds and not group.lost
    words = (
        f"{pool} {'keeps' if kept else 'misses'} the objective at {setting.load_name}: "
        f"a checkout waits {show_seconds(group.wait.p99)} at p99 "
        f"(objective {show_seconds(objective.wait_p99_seconds)})"
    )
    lost = f", {counted(group.lost, 'arrival')} were lost." if group.lost else "."
    return Headline(kept and trusted, words + lost)


def sections(result: Result) -> list[tuple[str, list[Repeats]]]:
    """The settings: those that were asked for apart from those that only probe."""
    groups = by_setting(result.points)
    parts = [
        ("Your load", [each for each in groups if not is_probe(result, each.setting)]),
        ("Probes", [each for each in groups if is_probe(result, each.setting)]),
    ]
    return [(title, found) for title, found in parts if found]


def is_probe(result: Result, setting: Setting) -> bool:
    """Whether it was measured only to find the answer: a pool kept full, or a rate on the way."""
    if result.kind == "capacity":
        return setting != result.answer
    return setting.load == "closed" and any(each.setting.load == "open" for each in result.points)


def failed_checks(result: Result) -> list[FailedCheck]:
    """The checks that failed, folded by kind, what touches the answer first."""
    kinds: dict[tuple[str, bool, Tone], dict[str, CheckResult]] = {}
    for setting, check in _failed(result):
        probe = setting is not None and is_probe(result, setting)
        key = (check.name, probe, _tone(result, setting))
        where = "the run" if setting is None else str(setting)
        found = kinds.setdefault(key, {})
        found[where] = max(check, found.get(where, check), key=_excess)
    folded = [
        FailedCheck(name, tuple(found), tone, max(found.values(), key=_excess).words)
        for (name, _, tone), found in kinds.items()
    ]
    return sorted(folded, key=lambda each: -TONES.index(each.tone))


def _failed(result: Result) -> Iterator[tuple[Setting | None, CheckResult]]:
    asked = [(check.setting, check) for check in result.checks]
    asked += [
        (group.setting, check)
        for _, groups in sections(result)
        for group in groups
        for point in group.points
        for check in point.checks
    ]
    return ((setting, check) for setting, check in asked if not check.passed)


def _excess(check: CheckResult) -> float:
    return (check.value or 0) / (check.bound or 1)


def _tone(result: Result, setting: Setting | None) -> Tone:
    if result.answer is None or result.kind == "run":
        return "bad"
    return "warning" if setting in (None, result.answer) else "note"


def tone_of(failed: Sequence[FailedCheck]) -> Tone:
    """The worst of them."""
    return max((each.tone for each in failed), key=TONES.index, default="good")


def about_rows(result: Result) -> list[tuple[str, str]]:
    """Of what, when, where and how."""
    about = result.about
    minutes = (about.ended_at - about.started_at).total_seconds() / 60
    place = "on the same machine" if about.machine.database_is_local else "on another machine"
    return [
        ("command", " ".join(about.command) or "–"),
        ("scenario", about.scenario),
        ("began", f"{about.started_at:%Y-%m-%d %H:%M:%S} UTC, took {show_number(minutes)} min"),
        ("seed", str(about.seed)),
        (
            "objective",
            f"{objective_words(about.objective)}, of which "
            f"{show_share(about.objective.headroom)} stay free",
        ),
        (
            "machine",
            f"{about.machine.cpu}, {about.machine.cores} cores, "
            f"{about.machine.memory_bytes / 2**30:.0f} GiB, {about.machine.system}",
        ),
        ("database", place),
        ("versions", ", ".join(f"{name} {version}" for name, version in about.versions.items())),
    ]
