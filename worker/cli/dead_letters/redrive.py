"""`worker dead-letters redrive`: send commands back to be carried out."""

from __future__ import annotations

import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.cli.dead_letters import summary_of
from worker.cli.dead_letters.selection import open_chosen
from worker.cli.prepare import paced
from worker.cli.terminal import Misused, Report, counted, say
from worker.cli.values import assign, fields, split
from worker.core.errors import WorkerError

if TYPE_CHECKING:
    from worker.broker.client.dead_letter import StoredDeadLetter
    from worker.broker.client.dead_letter_queue import DeadLetters
    from worker.cli.dead_letters.selection import Selection
    from worker.settings.settings import Settings


class LeftBehind(WorkerError):
    """Some of the chosen letters could not be edited, and stay where they are; exit code 1."""


async def redrive(
    settings: Settings, choice: Selection, editor: Editor, *, rate: float | None, dry: bool
) -> None:
    """Send the chosen letters back, edited if so wished, at most `rate` a second.

    Raises `LeftBehind` in the end, after all others, if some could not be edited; `Misused` where
    that was the only one.
    """
    count, steps, report = 0, paced(rate), Report()
    left: list[Misused] = []
    try:
        async with open_chosen(settings, choice) as (letters, chosen):
            async for letter in chosen:
                try:
                    edited = editor.edited(letter)
                except Misused as error:
                    if len(choice.selectors) == 1:
                        raise
                    left.append(error)
                    reason = {"action": "skipped", "reason": str(error)}
                    report.tell(summary_of(letter) | reason)
                    continue
                if not dry:
                    await anext(steps)
                    await _send_back(letters, letter, edited, editor)
                count += 1
                report.tell(_told(letter, edited, dry))
    finally:
        skipped = f", {len(left):,} skipped" if left else ""
        say(f"{counted(count, 'letter')} {'would be ' if dry else ''}sent back{skipped}")
    if left:
        more = f" (and {len(left) - 1:,} more)" if len(left) > 1 else ""
        raise LeftBehind(f"{left[0]}{more}")


async def _send_back(
    letters: DeadLetters, letter: StoredDeadLetter, edited: StoredDeadLetter, editor: Editor
) -> None:
    key = editor.key_of(edited)
    await letters.sender.send(edited.revived(letters.topology, key))
    # Only now: what is cut off here is there twice, and carried out once.
    await letters.settle(letter)


def _told(letter: StoredDeadLetter, edited: StoredDeadLetter, dry: bool) -> dict[str, Any]:
    told = summary_of(letter) | {"action": "would redrive" if dry else "redriven"}
    if edited is letter:
        return told
    return told | {"body": edited.body.decode("utf-8", "replace")}


class Editor:
    """Changes a command's body as the options say: `--set` a member, or `--edit` all of it."""

    def __init__(
        self, settings: Settings, choice: Selection, changes: list[str], edit: str | None
    ) -> None:
        if edit is not None and (changes or len(choice.selectors) != 1):
            raise Misused("--edit replaces the body of one letter: give its id, and no --set")
        paths = [tuple(split(change)[0]) for change in changes]
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise Misused(f"--set {'.'.join(twice[0])} is given twice")
        self._changes = changes
        self._body = None if edit is None else _read(edit)
        from worker.codec.codec import Codec
        from worker.core.registry import load_registry

        self._registry = load_registry(settings.entities)
        self._codec = Codec(self._registry)

    def key_of(self, letter: StoredDeadLetter) -> str | None:
        """The ordering key of the command in the letter; `None` if it is not usable."""
        return self._codec.key_of(letter.body, letter.command_type, letter.attributes)

    def edited(self, letter: StoredDeadLetter) -> StoredDeadLetter:
        """What to send; raises `Misused` where the changes cannot be made in it."""
        if self._body is not None:
            return replace(letter, body=self._body)
        if not self._changes:
            return letter
        if letter.members is None:
            raise Misused(
                f"letter {letter.number} is no JSON object, so --set cannot change it; "
                "replace its whole body with --edit"
            )
        members = deepcopy(letter.members)
        for change in self._changes:
            self._change(members, change, letter.command_type)
        try:
            return letter.rewritten(members)
        except ValueError:
            raise Misused(
                f"letter {letter.number} holds a number that is out of range, so --set cannot "
                "rewrite it; replace its whole body with --edit"
            ) from None

    def _change(self, members: dict[str, Any], change: str, type_: str | None) -> None:
        path, text = split(change)
        model = self._model(path[0], type_)
        if len(path) == 1:
            value = text if path[0] in ("id", "type", "key") else _any(text)
            assign(members, path, value, overwrite=True)
            return
        inner = members.get(path[0])
        assignment = f"{'.'.join(path[1:])}={text}"
        into = inner if isinstance(inner, dict) else {}
        members[path[0]] = fields(model, [assignment], into=into, overwrite=True)

    def _model(self, member: str, type_: str | None) -> Any:
        found = self._registry.find(type_ or "")
        if found is None:
            return None
        entity, verb = found
        return {"data": entity.verbs[verb].payload, "target": entity.target}.get(member)


def _any(text: str) -> Any:
    from worker.cli.values import parse

    return parse(text, frozenset())


def _read(path: str) -> bytes:
    if path == "-" and sys.stdin.isatty():
        say("reading the body from the terminal; Ctrl-D ends it")
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Misused(f"--edit {path}: {error.strerror}") from None
