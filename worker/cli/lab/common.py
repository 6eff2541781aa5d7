"""What `run`, `sweep` and `capacity` have in common: options, signals, what is told in the end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker.cli.lab.extra import lab_packages
from worker.cli.prepare import read_settings
from worker.cli.terminal import Misused, Report, coloured, emit, say

if TYPE_CHECKING:
    from worker.lab.measured import Point
    from worker.lab.plan import Plan
    from worker.lab.results import Objective, Result
    from worker.lab.runner import Campaign, View
    from worker.lab.scenario import Scenario
    from worker.lab.setting import Setting
    from worker.settings.settings import Settings

INTERRUPTED = 130
NO_ANSWER = 3
"""The load was measured, and no setting or rate can be recommended."""
COLOURS = {"bad": "red", "warning": "yellow"}

Name = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO", help="A name from `worker lab scenarios`, or a .toml file of your own."
    ),
]
Seconds = Annotated[
    float, typer.Option(metavar="S", min=0.5, max=3600, help="Length of each measurement.")
]
WarmUp = Annotated[float, typer.Option(metavar="S", min=0, max=600, help="Warm-up before each.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the scenario, such as `pool.pool_size=5` or `step.1.seconds=0.01`.",
        show_default=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the result files; by default one named after scenario and time.",
        show_default=False,
    ),
]
IntoService = Annotated[
    bool,
    typer.Option(
        "--into-service-database",
        help="Work in a schema of the service's own database, in place of a database beside it.",
    ),
]


def folder(out: Path | None, kind: str, scenario: str) -> Path:
    """Where the result goes."""
    stamp = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    return out or Path("lab-results") / f"{kind}-{scenario}-{stamp}"


def integers(option: str, text: str, *, least: int) -> list[int]:
    """`1,2,4` as numbers; raises `Misused` with the option's name."""
    values = []
    for part in text.split(","):
        if not part.strip().isdecimal() or int(part) < least:
            raise Misused(
                f"{option} {text}: {part.strip() or 'nothing'} is no whole number of at least "
                f"{least}; write them as in {option} 1,2,4"
            )
        values.append(int(part))
    return list(dict.fromkeys(values))


def time_of(option: str, text: str) -> float:
    """The seconds that an option's `20ms` means; raises `Misused` with the option's name."""
    from worker.lab.units import parse_seconds

    try:
        return parse_seconds(text)
    except ValueError as error:
        raise Misused(f"{option} {text}: {error}") from None


def load(name: str, *own: str, changes: Sequence[str] | None) -> Scenario:
    """The scenario with the command's own changes, then those of `--set`."""
    with lab_packages():
        from worker.lab.scenario_files import load_scenario
    return load_scenario(name, [*own, *(changes or ())])


def conduct(
    kind: Literal["run", "sweep", "capacity"],
    scenario: Scenario,
    plan: Callable[[], Plan],
    *,
    out: Path | None,
    into_service_database: bool,
    scenarios: Sequence[Scenario] = (),
    objective: Objective | None = None,
) -> None:
    """Measure, conclude, write the files, tell; exit code 130 if interrupted, 3 without an answer.

    `scenarios` are all that may come, where it is not the one alone.
    """
    with lab_packages():
        from rich.console import Console

        from worker.lab.analysis import analyse
        from worker.lab.report import write_report
        from worker.lab.results import Objective, save_result
        from worker.lab.runner import Campaign
        from worker.lab.view import open_view
    campaign = Campaign(
        kind=kind,
        scenario=scenario,
        scenarios=scenarios or [scenario],
        plan=plan,
        out=folder(out, kind, scenario.name),
        objective=objective or Objective(),
        into_service_database=into_service_database,
        command=("worker", *sys.argv[1:]),
    )
    settings = read_settings()
    try:
        with open_view(Console(stderr=True)) as view:
            result = asyncio.run(_carried_out(campaign, settings, _Telling(view)))
    except asyncio.CancelledError:
        raise typer.Exit(INTERRUPTED) from None  # the second signal
    if result.points:
        result = analyse(result)
        save_result(result, campaign.out / "result.json")
        write_report(result, campaign.out)
    _tell(result, campaign.out)
    if code := _code(result):
        raise typer.Exit(code)


def _code(result: Result) -> int:
    if result.partial:
        return INTERRUPTED
    return 0 if result.answer is not None else NO_ANSWER


async def _carried_out(campaign: Campaign, settings: Settings, view: View) -> Result:
    from worker.lab.runner import carry_out

    stop = asyncio.Event()
    running = asyncio.current_task()
    assert running is not None

    def on_signal() -> None:
        if stop.is_set():
            running.cancel()
            return
        say("stopping: what was measured so far is kept (again stops at once)")
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, on_signal)
    return await carry_out(campaign, settings, view, stop)


class _Telling:
    """Tells programs of each point, a JSON line on stdout; people look at the view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._report = None if sys.stdout.isatty() else Report()

    def begin(self, setting: Setting, seconds: float) -> None:
        self._view.begin(setting, seconds)

    def tick(self, tick: dict[str, Any]) -> None:
        self._view.tick(tick)

    def point(self, point: Point, seconds_left: float) -> None:
        self._view.point(point, seconds_left)
        if self._report is not None:
            self._report.tell(_summary(point))


def _summary(point: Point) -> dict[str, Any]:
    return {
        **point.setting.model_dump(exclude_none=True),
        "repeat": point.repeat,
        "throughput_per_second": round(point.throughput_per_second, 3),
        "wait_p50_seconds": point.wait.seconds.p50,
        "wait_p99_seconds": point.wait.seconds.p99,
        "latency_p99_seconds": point.latency_seconds.p99,
        "busy_mean": round(point.pool.busy_mean, 3),
        "timeouts": point.wait.timeouts,
        "failed": point.load.failed,
        "dropped": point.load.dropped,
    }


def _tell(result: Result, out: Path) -> None:
    """What was found: for people in words, for programs as the last line of JSON."""
    if not sys.stdout.isatty():
        Report().tell(_conclusion(result, out))
        return
    from worker.lab.text import failed_checks, headline

    good, words = headline(result)
    emit(coloured(words, None if good else "red", bold=good))
    if result.recommendation is not None:
        for reason in result.recommendation.reasons:
            emit(f"  - {reason}")
        for line in result.recommendation.env.splitlines():
            emit(line)
    for diagnosis in result.diagnoses:
        emit(f"{diagnosis.name}: {diagnosis.words}. {diagnosis.mend}")
    for check in failed_checks(result):
        emit(coloured(f"check failed: {check}", COLOURS.get(check.tone)))
    emit(f"All of it: {out / 'report.html'}")


def _conclusion(result: Result, out: Path) -> dict[str, Any]:
    from worker.lab.text import failed_checks

    advice = result.recommendation
    return {
        "result": str(out / "result.json"),
        "partial": result.partial,
        "points": len(result.points),
        "capacity_per_second": result.capacity_per_second,
        "recommendation": advice and advice.model_dump(exclude_none=True),
        "no_recommendation_because": result.no_recommendation_because,
        "diagnoses": [each.name for each in result.diagnoses],
        "failed_checks": [str(each) for each in failed_checks(result)],
    }
