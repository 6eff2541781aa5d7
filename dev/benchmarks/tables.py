"""The two tables, from `benchmarks.json`: on a terminal, and in docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table before it has a form."""

    title: str
    columns: Sequence[str]
    """The first is text, the others are figures."""
    lines: Sequence[Sequence[str]]


def contenders_sheet(document: Mapping[str, Any]) -> Sheet:
    """Rates, ratios, CPU time and memory of all contenders."""
    return Sheet(
        "Commands per second",
        (
            "contender",
            "median",
            "lowest to highest",
            "worker is … times as fast",
            "CPU µs a command: own",
            "broker",
            "database",
            "memory MB",
        ),
        [
            (
                contender["label"],
                _spread(contender["rate"], "{:,.0f}"),
                _reach(contender["rate"], "{:,.0f}"),
                _both(contender["worker_is_times_as_fast"]),
                *(
                    _figure(contender["cpu_us_per_command"][part])
                    for part in ("contender", "broker", "database")
                ),
                _figure(contender["peak_bytes"], scale=1e-6),
            )
            for contender in document["contenders"]
        ],
    )


def targets_sheet(document: Mapping[str, Any]) -> Sheet:
    """What was to be reached, and what was."""
    return Sheet(
        "Targets, as ratios within a round",
        ("target", "at least", "aim", "median", "lowest to highest", "verdict"),
        [
            (
                target["what"],
                f"{target['at_least']:g}",
                f"{target['aim']:g}",
                _spread(target["ratio"], "{:.2f}"),
                _reach(target["ratio"], "{:.2f}"),
                target["verdict"],
            )
            for target in document["targets"]
        ],
    )


def remarks(document: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the tables must know: who failed, lost, repeated or did not take part."""
    for contender in document["contenders"]:
        for remark in contender["remarks"]:
            yield f"{contender['name']}, {remark}"
    for name, reason in document["skipped"].items():
        yield f"{name} did not take part: {reason}"


def circumstances(document: Mapping[str, Any]) -> str:
    """One sentence on when, where and with what it was measured."""
    settings = document["settings"]
    return (
        f"Measured on {document['started_on'][:10]} in {document['seconds']} s: "
        f"{settings['rounds']} rounds of {settings['commands']:,} commands, {place(document)}."
    )


def place(document: Mapping[str, Any]) -> str:
    """Machine, servers, libraries and revision."""
    machine, servers = document["machine"], document["servers"]
    versions = ", ".join(f"{name} {version}" for name, version in document["libraries"].items())
    postgresql = servers["postgresql"]
    load = document.get("load_average_before")
    return (
        f"{machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, "
        f"{'' if load is None else f'load {load} before, '}"
        f"Python {machine['python']}, RabbitMQ {servers['rabbitmq']}, PostgreSQL "
        f"{postgresql['server_version']} (fsync {postgresql['fsync']}, synchronous_commit "
        f"{postgresql['synchronous_commit']}); {versions}; revision {document['revision']}"
    )


def for_terminal(sheet: Sheet) -> Table:
    """A table for rich."""
    table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(sheet.columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for line in sheet.lines:
        table.add_row(*line)
    return table


def for_markdown(sheet: Sheet) -> str:
    """A table for a page of docs."""
    rule = ["---", *("---:" for _ in sheet.columns[1:])]
    return "\n".join(_markdown_line(cells) for cells in (sheet.columns, rule, *sheet.lines))


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(spread: Mapping[str, float] | None, form: str) -> str:
    return form.format(spread["median"]) if spread else "–"


def _reach(spread: Mapping[str, float] | None, form: str) -> str:
    return f"{form} to {form}".format(spread["low"], spread["high"]) if spread else "–"


def _both(spread: Mapping[str, float] | None) -> str:
    return f"{_spread(spread, '{:.1f}')} ({_reach(spread, '{:.1f}')})" if spread else "–"


def _figure(value: float | None, *, scale: float = 1) -> str:
    return "–" if value is None else f"{value * scale:,.0f}"
