"""What became of published commands: words at a terminal, JSON elsewhere; documents likewise."""

from __future__ import annotations

import json

import pytest

from tests.in_process import see_terminal
from worker.cli.published import Published
from worker.cli.terminal import agrees, emit_document
from worker.core.errors import CommandRefused

DATA = {"id": 1, "username": "ann", "version": 1}
DONE = {"type": "user.created", "subject": "user/1", "commandid": "c", "data": DATA}
PROBLEM = {"type": "urn:worker:problem:conflict", "code": "conflict", "detail": "it is taken"}
REFUSED = {"type": "user.create.rejected", "commandid": "c", "data": PROBLEM}


def answers(published: Published, *events: object) -> str:
    """What is said in the end of those that were refused."""
    for event in events:
        published.show_answer(json.dumps(event).encode())
    with pytest.raises(CommandRefused) as caught:
        published.raise_if_refused()
    return str(caught.value)


def test_in_a_pipe_each_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    published = Published()
    published.show_confirmed({"id": "c", "type": "user.create", "data": {}})
    assert answers(published, DONE, REFUSED) == "1 of 2 commands were refused"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    assert lines == [{"id": "c", "type": "user.create"}, DONE, REFUSED]
    assert answers(Published(), REFUSED) == "conflict: it is taken"


@pytest.mark.parametrize("as_json", [True, False])
def test_at_a_terminal_they_are_words_unless_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    see_terminal(monkeypatch, 80)
    published = Published(as_json=as_json)
    published.show_confirmed({"id": "c\x1b", "type": "user.create"})
    why = answers(published, REFUSED)
    published.show_answer(json.dumps(DONE).encode())
    lines = capsys.readouterr().out.splitlines()

    if as_json:
        assert [json.loads(line)["type"] for line in lines] == [
            *("user.create", "user.create.rejected", "user.created")
        ]
        assert why == "conflict: it is taken"
    else:
        assert lines == [
            "user.create  command c\\x1b  published",
            "user.create.rejected  command c  conflict: it is taken",
            "user.created  user/1  username=ann",
        ]
        assert why == "the command was refused"


def test_nothing_is_said_where_none_was_refused() -> None:
    published = Published()
    published.show_answer(json.dumps(DONE).encode())
    published.raise_if_refused()


def test_a_document_is_indented_at_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    emit_document({"a": 1})
    see_terminal(monkeypatch, 80)
    emit_document({"a": 1}, as_line=True)
    emit_document({"a": 1})

    assert capsys.readouterr().out == '{"a": 1}\n{"a": 1}\n{\n  "a": 1\n}\n'


@pytest.mark.parametrize(
    ("typed", "agreed"),
    [("y\n", True), (" YES\n", True), ("\n", False), ("n\n", False), ("yy\n", False), ("", False)],
)
def test_only_yes_is_yes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    agreed: bool,
) -> None:
    monkeypatch.setattr("sys.stdin.readline", lambda: typed, raising=False)

    assert agrees("Delete all?") is agreed
    assert capsys.readouterr().err == "Delete all? [y/N] "
