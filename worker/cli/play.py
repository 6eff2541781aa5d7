"""What `worker demo` shows: the commands, the events expected, and how both are printed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.broker.client.client import Client
from worker.broker.topology import Topology
from worker.cli.events import members_of, problem_of, summary
from worker.cli.outgoing import as_publication
from worker.cli.terminal import counted, printable
from worker.codec.codec import Codec
from worker.core.errors import TimedOut
from worker.core.messages import new_id

ANSWER_SECONDS = 10


@dataclass(frozen=True, slots=True)
class PlayedEvent:
    """The event that answered a command, and whether it came again."""

    body: bytes
    event: dict[str, Any]
    replayed: bool

    @property
    def row_id(self) -> Any:
        """The row's id; `None` if the command was refused."""
        data = self.event.get("data")
        return data.get("id") if isinstance(data, dict) else None


class Play:
    """Sends commands one by one; collects in `missing` what did not come as it must."""

    def __init__(self, sender: Client, topology: Topology, codec: Codec) -> None:
        self.missing: list[str] = []
        self._sender = sender
        self._topology = topology
        self._codec = codec
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._scene = 0
        self._began = monotonic()

    async def perform(self) -> None:
        """Show what a worker does; leave no row behind."""
        name = f"ann-{uuid4().hex[:6]}"
        email = f"{name}@example.com"
        first = new_id()
        new_user = {"data": {"username": name, "email": email}}

        created = await self._act(
            "A new user", "user.create", new_user, expect="user.created", id_=first
        )
        if created is None:
            return
        user = {"id": created.row_id}
        await self._act(
            "Change only what is given, if nobody else did so meanwhile",
            "user.update",
            {"target": user, "data": {"rating": 4.5}, "expected_version": 1},
            expect="user.updated",
        )
        ordered = await self._act(
            "An order, its user named by a key",
            "order.create",
            {"data": {"user": {"username": name}}},
            expect="order.created",
        )
        await self._act(
            "Refused: the address is taken, whatever its letter case",
            "user.create",
            {"data": {"username": f"{name}-2", "email": email.upper()}},
            expect="user.create.rejected",
        )
        again = await self._act(
            "The first command once more, with its id: no effect, the same event again",
            "user.create",
            new_user,
            expect="user.created",
            id_=first,
        )
        if again and not (again.replayed and again.body == created.body):
            self.missing.append("the duplicate did not get the very same event")
        if ordered:
            await self._act(
                "And all of it away again",
                "order.delete",
                {"target": {"id": ordered.row_id}},
                expect="order.deleted",
            )
        await self._act(None, "user.delete", {"target": user}, expect="user.deleted")

    def close(self, words: str) -> None:
        """Sum up, and show how to go on."""
        if not self.missing:
            seconds = monotonic() - self._began
            self._console.print(
                f"{counted(self._scene, 'command')}, each with the event expected, "
                f"in {seconds:.1f} s.\n",
                style="green",
            )
        self._console.print(words, soft_wrap=True, end="")

    async def _act(
        self,
        title: str | None,
        type_: str,
        members: dict[str, Any],
        *,
        expect: str,
        id_: str | None = None,
    ) -> PlayedEvent | None:
        """Send one command, show it and its event; `None` if that is not the one expected."""
        self._scene += 1
        if title is not None:
            self._console.print(f"# {title}", style="bold")
        self._show("command", type_, json.dumps(members), style="cyan")
        command = {"id": id_ or new_id(), "type": type_, **members}
        # Unchecked: where a command is answered in another way, that is to be seen.
        item = self._codec.decode_unsent(json.dumps(command).encode())
        publication = as_publication(self._topology, item, command)
        try:
            reply = await self._sender.ask(publication, timeout_seconds=ANSWER_SECONDS)
        except TimedOut:
            self.missing.append(f"{type_} got no event within {ANSWER_SECONDS} s")
            return None
        event = members_of(reply.body) or {}
        answer = PlayedEvent(reply.body, event, bool(reply.headers.get("x-replayed")))
        style = "yellow" if problem_of(event) else "green"
        subject = f"{event.get('subject')}  " if event.get("subject") else ""
        again = "  (again)" if answer.replayed else ""
        self._show("event", str(event.get("type")), f"{subject}{summary(event)}{again}", style)
        self._console.print()
        if event.get("type") != expect:
            self.missing.append(f"{type_} got {event.get('type')}, not {expect}")
            return None
        return answer

    def _show(self, kind: str, type_: str, words: str, style: str) -> None:
        """One line, folded into its column where the terminal is narrow."""
        row = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
        row.add_column(width=7)
        row.add_column(width=20)
        row.add_column(overflow="fold", ratio=1)
        row.add_row(
            Text(kind, style="dim"), Text(printable(type_), style=style), Text(printable(words))
        )
        self._console.print(row)
