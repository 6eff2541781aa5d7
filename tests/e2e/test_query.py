"""`worker query`, as users meet it."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from tests.support.commandline import CommandLine
from tests.support.harness import Harness
from worker.cli.rows import RowTable


async def some_rows(harness: Harness) -> None:
    await harness.pool.execute(
        "INSERT INTO users (username, email, rating)"
        " SELECT 'u' || n, 'u' || n || '@b.de', n FROM generate_series(1, 5) AS n"
    )
    await harness.pool.execute(
        "INSERT INTO orders (user_id, is_completed) SELECT id, id % 2 = 0 FROM users"
    )


async def test_rows_are_asked_for_and_printed_as_json_lines(
    cli: CommandLine, harness: Harness
) -> None:
    async with harness.worker():
        await some_rows(harness)
        found = await cli("query", "user", "rating:gte=4", "--order-by", "-rating")
        assert [row["username"] for row in found.lines] == ["u5", "u4"]
        assert found.err == ""
        one = await cli(
            *("query", "user", "--target", "username=u1", "--include", "orders"),
            *("--fields", "username"),
        )
        assert one.line.keys() == {"username", "orders"}
        groups = await cli(
            *("query", "order", "user.rating:in=1,2", "--aggregate", '{"count": true}'),
            *("--group-by", "is_completed"),
        )
        assert groups.lines == [
            {"group": {"is_completed": False}, "count": 1},
            {"group": {"is_completed": True}, "count": 1},
        ]


async def test_pages_are_followed_where_all_are_wanted(cli: CommandLine, harness: Harness) -> None:
    async with harness.worker():
        await some_rows(harness)
        first = await cli("query", "user", "--limit", "2")
        assert len(first.lines) == 2
        cursor = re.findall(r"--after (\S+),", first.err)[0]
        second = await cli("query", "user", "--limit", "2", "--after", cursor)
        assert [row["username"] for row in second.lines] == ["u3", "u4"]
        every = await cli("query", "user", "--limit", "2", "--all")
        assert len(every.lines) == 5
        assert every.err == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nobody",), "there are: user, order"),
        (("user", "usernam=x"), "did you mean username"),
        (("user", "rating:about=4"), "/data/where/rating/about is not known here"),
        (("user", "rating"), "field:operator=value"),
        (("user", "a=1", "--where", "{}"), "not both"),
        (("user", "--where", "{"), "--where: "),
        (("user", "--limit", "0"), "--limit must be a whole number from 1 to 1000"),
        (("user", "--after", "x"), "--after is no cursor of this query"),
    ],
)
async def test_what_cannot_be_asked_is_told_before_it_is_sent(
    bare: CommandLine, arguments: tuple[str, ...], says: str
) -> None:
    result = await bare("query", *arguments, code=2)
    assert says in result.err


async def test_what_is_not_there_and_nobody_to_answer(cli: CommandLine, harness: Harness) -> None:
    async with harness.worker():
        missing = await cli("query", "user", "--target", "id=9", code=3)
        assert "not_found" in missing.err
    silent = await cli("query", "user", "--timeout", "0.3", code=5)
    assert "no answer within 0.3 s. Is a worker running" in silent.err


def test_on_a_terminal_rows_are_a_table_in_which_nothing_acts(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    rows = RowTable(as_json=False)
    rows.show({"items": [{"id": 1, "name": "a\x1b[31m", "owner": {"id": None}}], "next": None})
    out = capfdbinary.readouterr().out.decode()
    assert "owner.id" in out
    assert "\\x1b[31m" in out
    assert "\x1b[31m" not in out.replace("\x1b[1m", "").replace("\x1b[0m", "")


def test_its_help_has_examples() -> None:
    from worker.cli import app

    assert "worker query user rating:gte=4" in CliRunner().invoke(app, ["query", "--help"]).output
