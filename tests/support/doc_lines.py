"""The very lines of docs/security.md, to be carried out by tests."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import asyncpg

from dev.servers.postgres import PrivatePostgres
from dev.servers.rabbitmq import PrivateRabbitMQ

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
PASSWORD = "s3cret"


def block(language: str, about: str) -> str:
    """The fenced block that is marked so, with a password for the dots."""
    (found,) = re.findall(
        rf"^```{language} {about}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return str(found).replace("'…'", f"'{PASSWORD}'")


async def run_sql(server: PrivatePostgres, about: str, *, user: str, database: str) -> None:
    """Carry a block of SQL out, statement by statement, as psql does."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=server.port, user=user, password=PASSWORD, database=database
    )
    try:
        for statement in block("sql", about).split(";\n"):
            if statement.strip():
                await connection.execute(statement)
    finally:
        await connection.close()


async def run_rabbitmqctl(server: PrivateRabbitMQ, about: str) -> None:
    """Carry a block of shell lines out, those of different accounts at the same time."""
    by_account: dict[str, list[list[str]]] = {}
    for line in block("sh", about).splitlines():
        program, *words = shlex.split(line)
        assert program == "rabbitmqctl"
        by_account.setdefault(words[1], []).append(words)

    def run(commands: list[list[str]]) -> None:
        for words in commands:
            server.ctl(*words)

    await asyncio.gather(*(asyncio.to_thread(run, commands) for commands in by_account.values()))
