"""What must hold after every schedule: the guarantees, read off broker and database."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tests.support.interleavings.broker import Broker, Message, Published, ServerChannel
from tests.support.interleavings.commands import MAX_ATTEMPTS, NOTED, Planned
from tests.support.interleavings.database import Database
from tests.support.interleavings.schedule import World

if TYPE_CHECKING:
    from tests.support.interleavings.machine import Plan


class Record:
    """Watches a schedule, and judges it in the end."""

    def __init__(self, plan: Plan, world: World, broker: Broker, database: Database) -> None:
        self.plan = plan
        self.world = world
        self.broker = broker
        self.database = database
        self.is_disturbed = any(each.behaviour == "poison" for each in plan.commands)
        """Whether anything happened that makes attempts count otherwise than a handler's own."""
        self._complaints: list[str] = []
        self._finished = False
        self._acked: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        broker.on_event = self._on_event
        broker.on_ack = self._on_ack
        broker.on_deliver = self._on_deliver
        self._delivered: list[Message] = []
        self._reordered: set[str] = set()
        """Keys whose commands the broker itself has not delivered in the order sent."""

    def complain(self, sentence: str) -> None:
        """Something is wrong."""
        self.world.tell("complaint", sentence)
        self._complaints.append(sentence)

    def note_finished(self) -> None:
        """Every command is acknowledged."""
        self._finished = True

    def _on_event(self, event: Published) -> None:
        """G3: what is published has been committed, and is always the same."""
        id_ = event.headers.get("commandid")
        again = id_ is not None and self._answered[id_]
        self.world.tell("published again" if again else "published", f"{event.routing_key}, {id_}")
        if id_ is None:
            return
        self._answered[id_] += 1
        if event.body not in self.database.answers[id_] and _code(event) != "id_reused":
            self.complain(f"G3: an event of {id_} was published, which is not committed")

    def _on_ack(self, message: Message) -> None:
        """G1: what is acknowledged has been answered, each time."""
        id_ = json.loads(message.body).get("id")
        self.world.tell("acknowledged", str(id_))
        if id_ is None:
            return
        self._acked[id_] += 1
        if self._acked[id_] > self._answered[id_]:
            self.complain(f"G1: {id_} was acknowledged before its event was published")

    def _on_deliver(self, message: Message, channel: ServerChannel) -> None:
        """G4 is about the order delivered: is it the order sent?

        It is not where an earlier command with the key is with another connection, whose end the
        broker has not noticed yet, or was returned and waits behind others.
        """
        if message.returns:  # it may be answered from the ledger, which keeps no attempts
            self.is_disturbed = True
        key = _key(message)
        for earlier in self._delivered:
            if earlier.acknowledged or earlier.position >= message.position:
                continue
            if _key(earlier) == key and earlier not in channel.unacked.values():
                self._reordered.add(key)
        self._delivered.append(message)

    def complaints(self) -> list[str]:
        """Everything that is wrong."""
        if not self._finished:
            self.complain("G1: not every command was acknowledged in the end")
        if not self._complaints:
            self._check_outcomes()
            self._check_effects()
            self._check_order()
            self._check_dead_letters()
        return self._complaints

    @property
    def _planned(self) -> list[Planned]:
        return list(dict.fromkeys(self.plan.commands))

    @property
    def _by_id(self) -> dict[str, list[Planned]]:
        by_id: dict[str, list[Planned]] = defaultdict(list)
        for command in self._planned:
            if command.id is not None:
                by_id[command.id].append(command)
        return by_id

    def _check_outcomes(self) -> None:
        """G1 and G5: each command ended, and as it would have ended alone."""
        for id_, commands in self._by_id.items():
            events = [each for each in self.broker.events if each.headers.get("commandid") == id_]
            first = {each.routing_key for each in events if _code(each) != "id_reused"}
            expected = {command.ends_as for command in commands}
            if not first:
                self.complain(f"G1: {id_} has no event")
            elif not first <= expected or (len(commands) == 1 and first != expected):
                self.complain(f"G5: {id_} ended as {sorted(first)}, not as {sorted(expected)}")

    def _check_effects(self) -> None:
        """G2: exactly one effect, and the event shows it."""
        applied = Counter(effect.command for effect in self.database.effects)
        for id_, commands in self._by_id.items():
            total = sum(applied[str(command.number)] for command in commands)
            done = self.database.ledger[id_].outcome == "done"
            if total != done:
                self.complain(
                    f"G2: {id_} took effect {total} times and is {'' if done else 'not '}done"
                )
        for command in self._planned:
            if command.id is None and not applied[str(command.number)]:
                self.complain(f"G1: command {command.number}, without id, was not carried out")
        for event in self.broker.events:
            if event.routing_key == NOTED:
                self._check_truth(json.loads(event.body))

    def _check_truth(self, event: dict[str, Any]) -> None:
        data = event["data"]
        of_row = [each for each in self.database.effects if each.row == data["username"]]
        effect = of_row[data["version"] - 1] if len(of_row) >= data["version"] else None
        shown = data["email"]
        if effect is None or effect.command != shown:
            self.complain(f"G3: the event of command {shown} shows what is not so: {event}")

    def _check_order(self) -> None:
        """G4: commands of one key take effect, and are answered, in the order delivered."""
        sent: dict[str, list[Planned]] = defaultdict(list)
        for command in self._planned:
            if command.key is None or command.key in self._reordered:
                continue
            if len(self._by_id.get(command.id or "", ())) == 1:
                sent[command.key].append(command)
        for key, commands in sent.items():
            numbers = [str(command.number) for command in commands]
            took = [each.command for each in self.database.effects if each.row == key]
            took = [number for number in took if number in numbers]
            if took != [number for number in numbers if number in took]:
                self.complain(f"G4: of {key} took effect {took}, in this order")
            self._check_events_in_order(key, [command.id for command in commands])

    def _check_events_in_order(self, key: str, ids: list[str | None]) -> None:
        seen = [each.headers.get("commandid") for each in self.broker.events]
        for earlier, later in pairwise(ids):
            last = len(seen) - 1 - seen[::-1].index(later)
            if last < seen.index(earlier):
                self.complain(f"G4: the event of {later} stayed ahead of that of {earlier}, {key}")

    def _check_dead_letters(self) -> None:
        """G1 and G5: what failed is set aside, after as many attempts as it has."""
        letters = defaultdict(list)
        for letter in self.broker.dead_letters:
            letters[json.loads(letter.body).get("id")].append(letter)
        for id_, commands in self._by_id.items():
            if len(commands) > 1:  # what failed under an id may be mended, and sent again
                continue
            failed = self.database.ledger[id_].outcome == "dead_lettered"
            if failed != bool(letters[id_]):
                self.complain(f"G1: {id_} failed, but there is no dead letter, or the reverse")
            if not failed or self.is_disturbed:
                continue
            attempts = {letter.headers["x-attempts"] for letter in letters[id_]} - {0}
            expected = {"broken": {MAX_ATTEMPTS}, "hopeless": {1}}.get(commands[0].behaviour)
            if expected is not None and attempts != expected:
                self.complain(f"G5: {id_} was given up after {attempts} attempts, not {expected}")


def _key(message: Message) -> str:
    return str(json.loads(message.body).get("key"))


def _code(event: Published) -> str | None:
    found = json.loads(event.body)["data"].get("code")
    return str(found) if found is not None else None
