"""`worker partitions`: how the commands queues stand; another number of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.group import Group
from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import counted, emit_json, say

if TYPE_CHECKING:
    from worker.broker.client.partition_admin import QueueState
    from worker.settings.settings import Settings

app = Group(help="Show the partitions of the commands; change their number.")


@app.command()
def show() -> None:
    """Show each of the commands queues, as JSON lines.

    `messages` wait to be delivered; null says that there is no such queue yet. `active` says
    whether a worker takes from the partition; on the queue that all share, `workers` is how many
    there are. `served` is false for a partition beyond WORKER_PARTITIONS. To which partition a key
    goes is known to the broker alone.

    \b
    Examples:
      worker partitions show
      worker partitions show | jq -s 'map(.messages) | add'
    """
    complete(_show(read_settings()))


async def _show(settings: Settings) -> None:
    from worker.broker.client.partition_admin import look
    from worker.broker.connection import connect
    from worker.broker.topology import Topology

    topology = Topology.of(settings)
    async with connect(settings.broker, f"{settings.namespace} partitions") as connection:
        states = await look(connection, topology)
    for state in states:
        emit_json(_shown(state))
    _tell(states)


def _shown(state: QueueState) -> dict[str, object]:
    shown: dict[str, object] = {"queue": state.queue, "messages": state.messages}
    if state.partition is None:
        return shown | {"workers": state.consumers}
    active, served = state.consumers > 0, state.served
    return shown | {"partition": state.partition, "active": active, "served": served}


def _tell(states: list[QueueState]) -> None:
    shared, *partitions = states
    served = [state for state in partitions if state.served]
    waiting = sum(state.messages or 0 for state in states)
    say(
        f"{counted(max(1, len(served)), 'partition')}, {counted(shared.consumers, 'worker')}, "
        f"{counted(waiting, 'command')} waiting"
    )
    missing = [state.queue for state in (shared, *served) if state.messages is None]
    if missing:
        say(f"not there yet, workers make them when they start: {', '.join(missing)}")
    idle = [state.queue for state in served if state.messages is not None and not state.consumers]
    if idle:
        say(f"no worker takes from: {', '.join(idle)}")
    strays = [state.queue for state in partitions if not state.served]
    if strays:
        say(
            f"beyond WORKER_PARTITIONS={max(1, len(served))}, workers will not start: "
            f"{', '.join(strays)}; see worker partitions apply --help"
        )


@app.command()
def apply() -> None:
    """Make the queues that WORKER_PARTITIONS asks for, and remove the partitions beyond it.

    Refused, with nothing changed, while commands wait in the queues that there are, or workers take
    from them: a key may go to another partition than before, and would overtake what still waits.
    So pause the publishers, let the workers empty the queues, stop them, apply, start them with the
    new number. Needs the configure right. Prints what was removed, as JSON lines.

    \b
    Example:
      WORKER_PARTITIONS=8 worker partitions apply
    """
    complete(_apply(read_settings()))


async def _apply(settings: Settings) -> None:
    from worker.broker.client import partition_admin
    from worker.broker.connection import connect
    from worker.broker.topology import Topology

    topology = Topology.of(settings)
    async with connect(settings.broker, f"{settings.namespace} partitions") as connection:
        removed = await partition_admin.apply(connection, topology)
    for state in removed:
        emit_json({"queue": state.queue, "action": "removed"})
    say(f"{counted(settings.partitions, 'partition')}, {counted(len(removed), 'queue')} removed")
