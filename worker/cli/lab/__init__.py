"""`worker lab`: how big should the pool be? One file a command."""

from __future__ import annotations

from worker.cli.group import Group
from worker.cli.lab import capacity, diff, gate, report, run, scenarios, sweep

app = Group(
    help="Load tests of the connection pool: how big should it be, and why?\n\n"
    "Needs the extra packages of `pip install 'command-worker[lab]'`.",
)


@app.callback()
def lab() -> None:
    """A callback keeps typer from taking a single command for the group itself."""


app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("capacity")(capacity.capacity)
app.command("scenarios")(scenarios.scenarios)
app.command("report")(report.report)
app.command("diff")(diff.diff)
app.command("gate")(gate.gate)
