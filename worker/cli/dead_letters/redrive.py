"""`worker dead-letters redrive`: send commands back to be carried out."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.cli.dead_letters import summary_of
from worker.cli.dead_letters.selection import open_chosen
from worker.cli.prepare import paced
from worker.cli.terminal import Misused, Report, counted, say
from worker.cli.values import assign, fields, split

if TYPE_CHECKING:
    from worker.broker.client.dead_letter import Letter
    from worker.cli.dead_letters.selection import Choice
    from worker.settings.settings import Settings


async def redrive(
    settings: Settings, choice: Choice, editor: Editor, *, rate: float | None, dry: bool
) -> None:
    """Send the chosen letters back, edited if so wished, at most `rate` a second."""
    from worker.processing.transaction import REDRIVE_HEADER

    count, steps, report = 0, paced(rate), Report()
    try:
        async with open_chosen(settings, choice) as (letters, chosen):
            async for letter in chosen:
                body = editor.edited(letter)
                told = summary_of(letter) | {"action": "would redrive" if dry else "redriven"}
                if body != letter.body:
                    told["body"] = body.decode("utf-8", "replace")
                if not dry:
                    await anext(steps)
                    key = editor.key_of(body, letter.properties.message_type)
                    command = letter.revived(letters.topology, body, key, {REDRIVE_HEADER: True})
                    await letters.sender.send(command)
                    # Only now: what is cut off here is there twice, and carried out once.
                    await letters.settle(letter)
                count += 1
                report.tell(told)
    finally:
        say(f"{counted(count, 'letter')} {'would be ' if dry else ''}sent back")


class Editor:
    """Changes a command's body as the options say: `--set` a member, or `--edit` all of it."""

    def __init__(
        self, settings: Settings, choice: Choice, changes: list[str], edit: str | None
    ) -> None:
        if edit is not None and (changes or len(choice.selectors) != 1):
            raise Misused("--edit replaces the body of one letter: give its id, and no --set")
        for change in changes:
            split(change)
        self._changes = changes
        self._body = None if edit is None else _read(edit)
        from worker.codec.codec import Codec
        from worker.core.registry import load_registry

        self._registry = load_registry(settings.entities)
        self.key_of = Codec(self._registry).key_of

    def edited(self, letter: Letter) -> bytes:
        """The body to send; raises `Misused` where the changes cannot be made in it."""
        if self._body is not None:
            return self._body
        if not self._changes:
            return letter.body
        if letter.members is None:
            raise Misused(
                f"letter {letter.number} is no JSON object, so --set cannot change it; "
                "replace its whole body with --edit"
            )
        members = deepcopy(letter.members)
        for change in self._changes:
            self._change(members, change, letter.command_type)
        try:
            return json.dumps(members, allow_nan=False).encode()
        except ValueError:
            raise Misused(
                f"letter {letter.number} holds a number that is out of range, so --set cannot "
                "rewrite it; replace its whole body with --edit"
            ) from None

    def _change(self, members: dict[str, Any], change: str, type_: str | None) -> None:
        path, text = split(change)
        model = self._model(path[0], type_)
        if len(path) == 1:
            assign(members, path, text if path[0] in ("id", "type", "key") else _any(text))
            return
        inner = members.get(path[0])
        assignment = f"{'.'.join(path[1:])}={text}"
        members[path[0]] = fields(
            model, [assignment], into=inner if isinstance(inner, dict) else {}
        )

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
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Misused(f"--edit {path}: {error.strerror}") from None
