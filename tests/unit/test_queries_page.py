"""The examples of docs/queries.md become just the SQL that stands beside them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql import asyncpg
from typer.testing import CliRunner

from tests.support.harness import Nowhere
from worker.cli import app
from worker.cli.query import query
from worker.codec.codec import Codec
from worker.core.messages import Delivery, Query
from worker.core.queries import Get
from worker.core.query_schema import QuerySchemas
from worker.core.registry import load_registry
from worker.processing.queries.reader import columns_of
from worker.processing.queries.statements import Statements, related

PAGE = Path(__file__).parents[2] / "docs" / "queries.md"
EXAMPLES = re.findall(
    r"^```json\n(.*?)^```\n\n```sql\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
)
REGISTRY = load_registry("worker.entities")
SCHEMAS = QuerySchemas(REGISTRY)
DIALECT: Any = asyncpg.dialect  # carries no types


def parsed(body: str) -> Query:
    delivery = Delivery(body.encode(), tag=0, source=Nowhere(), reply_to="somebody")
    item = Codec(REGISTRY).decode(delivery)
    assert isinstance(item, Query), item
    return item


def in_sql(statement: Any) -> str:
    compiled = statement.compile(dialect=DIALECT(), compile_kwargs={"literal_binds": True})
    return re.sub(r"\s+", " ", str(compiled))


@pytest.mark.parametrize(("body", "sql"), EXAMPLES)
def test_an_example_becomes_the_sql_beside_it(body: str, sql: str) -> None:
    item, statements = parsed(body), Statements(SCHEMAS)
    schema, asked = SCHEMAS[item.entity], item.asked
    if isinstance(asked, Get):
        statement = statements.row(schema, asked.target, columns_of(asked))
    elif asked.aggregate is not None:
        statement = statements.groups(schema, asked)
    else:
        statement = statements.rows(schema, asked, columns_of(asked))
    written = re.sub(r"\s+", " ", sql).strip()
    assert in_sql(statement) == written


def test_there_are_examples_of_each_kind() -> None:
    kinds = {json.loads(body)["type"] for body, _ in EXAMPLES}
    assert kinds == {"user.get", "user.list", "order.list"}
    assert len(EXAMPLES) >= 8


def test_an_include_is_one_statement_whatever_the_number_of_rows() -> None:
    statement = related(SCHEMAS["user"], "orders", SCHEMAS["order"], [1, 2], ["id"])
    assert in_sql(statement) == (
        "SELECT users_1.id AS owner, orders_1.id FROM users AS users_1"
        " JOIN orders AS orders_1 ON users_1.id = orders_1.user_id"
        " WHERE users_1.id IN (1, 2) ORDER BY orders_1.id"
    )


LINES = re.findall(r"^ *(worker query .*)$", PAGE.read_text() + (query.__doc__ or ""), re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_is_one_that_the_command_line_takes(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    async def ask(
        settings: Any, registry: Any, command: dict[str, Any], *_: Any, **__: Any
    ) -> None:
        asked.append(command)

    monkeypatch.setattr("worker.cli.query._ask", ask)
    words = shlex.split(line.partition(" > ")[0])
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    assert parsed(json.dumps(asked[0])).entity == words[2]
