"""`worker doctor`: what would lose data, stall, or keep a worker from starting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import coloured, counted, emit, emit_json, printable, say
from worker.core.errors import Misconfigured
from worker.core.findings import Finding


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Each finding as a line of JSON, for programs.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="How many processes are to share the database server.")
    ] = 1,
) -> None:
    """Look at settings, broker and database, and say what is wrong, why, and what mends it.

    Reads, and changes nothing. A problem would lose data, stall, or keep a worker from starting; a
    note is worth knowing. Exit code 0 where there is no problem, else 1. AMQP shows no policies and
    no bindings: rabbitmqctl list_policies, rabbitmqctl list_bindings.

    \b
    Examples:
      worker doctor
      worker doctor --processes 4
      worker doctor --json | jq -r 'select(.level == "problem") | .fix'
    """
    findings = complete(_examine(processes, as_json=as_json))
    problems = sum(finding.level == "problem" for finding in findings)
    notes = len(findings) - problems
    say(f"{counted(problems, 'problem')}, {counted(notes, 'note')}")
    if problems:
        raise typer.Exit(1)


async def _examine(processes: int, *, as_json: bool) -> list[Finding]:
    findings = []
    async for finding in _findings(processes):
        findings.append(finding)
        if as_json:
            emit_json(asdict(finding))
        else:
            _tell(finding)
    return findings


async def _findings(processes: int) -> AsyncIterator[Finding]:
    from worker.broker.client.diagnosis import examine_broker
    from worker.broker.topology import Topology
    from worker.core.registry import load_registry
    from worker.database.diagnosis import examine_database
    from worker.database.engine import make_engine

    try:
        settings = read_settings()
        load_registry(settings.entities)
    except Misconfigured as fault:
        yield Finding.of("settings", fault, "a worker does not start so")
        return
    name = f"{settings.namespace} doctor"
    async for finding in examine_broker(Topology.of(settings), name):
        yield finding
    engine = make_engine(settings.database, name=name)
    try:
        async for finding in examine_database(engine, settings.migrations, processes=processes):
            yield finding
    finally:
        await engine.dispose()


def _tell(finding: Finding) -> None:
    colour = "red" if finding.level == "problem" else "yellow"
    emit(coloured(f"{finding.level}: {printable(finding.what)}", colour, bold=True))
    emit(printable(f"  why:  {finding.why}"))
    emit(printable(f"  mend: {finding.fix}"))
