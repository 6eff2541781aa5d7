"""Help is quick, plain, and has an example; errors are one sentence."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version

import pytest

from tests.support.commandline import CommandLine, Result
from worker.cli import exit_code

COMMANDS = [
    "run",
    "health",
    "doctor",
    "migrate",
    "migration",
    "publish",
    "watch",
    "dead-letters list",
    "dead-letters show",
    "dead-letters redrive",
    "dead-letters drop",
    "ledger show",
    "ledger republish",
    "ledger prune",
    "partitions show",
    "partitions apply",
    "schema",
    "demo",
    "lab run",
    "lab sweep",
    "lab capacity",
    "lab scenarios",
    "lab report",
    "lab diff",
    "lab gate",
]


def in_process(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of what needs neither settings nor servers, without a process for each."""
    monkeypatch.setattr(sys, "argv", ["worker", *arguments])
    return exit_code()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_of_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(monkeypatch, *command.split(), "--help") == 0
    page = capsys.readouterr().out
    assert f"worker {command}" in page.partition("Example")[2]
    assert all(line.isprintable() for line in page.splitlines())
    assert "╭" not in page


def test_the_version_is_told_whatever_else_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process(monkeypatch, "--version") == 0
    assert in_process(monkeypatch, "--version", "--help") == 0
    assert capsys.readouterr().out == f"worker {version('command-worker')}\n" * 2


async def test_the_overview_names_every_command(bare: CommandLine) -> None:
    page = await bare("--help")
    for command in COMMANDS:
        assert f"  {command.split()[0]} " in page.out


async def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, worker.cli; "
        "heavy = {'sqlalchemy', 'aio_pika', 'pydantic', 'aiohttp', 'rich', 'alembic', 'asyncio'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() in ("[]", "['asyncio']")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["publis"], "No such command"),
        (["watch", "--limit", "0"], "--limit"),
        (["publish"], "give the TYPE"),
        (["publish", "--file", "-", "--key", "k"], "--file holds whole commands"),
        (["dead-letters", "redrive"], "--all"),
        (["dead-letters", "drop", "1", "--all"], "--all"),
        (["ledger", "republish"], "--since"),
        (["ledger", "republish", "--since", "2026-11-23T08:00:00"], "zone"),
        (["ledger", "prune", "--older-than", "old"], "--older-than old"),
    ],
)
def test_wrong_usage_is_told_and_ends_with_2(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert in_process(monkeypatch, *arguments) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.out == ""


WRONG = [
    (["publish", "user.create", "username"], "not of the form field=value"),
    (["publish", "user.create", "a=1", "--data", "[]"], "--data is no JSON object"),
    (["publish", "--file", "/no/such/file"], "No such file"),
    (["publish", "order.craete"], "Did you mean order.create? Known types: user.create"),
    (["watch", "--from", "yesterday"], "--from yesterday"),
    (["dead-letters", "redrive", "--all", "--edit", "-"], "one letter"),
    (["dead-letters", "drop", "--all"], "nobody is here to be asked: add --yes"),
]


async def test_wrong_values_are_told_and_end_with_2(bare: CommandLine) -> None:
    results = await asyncio.gather(*(bare(*arguments, code=2) for arguments, _ in WRONG))
    for (arguments, words), result in zip(WRONG, results, strict=True):
        assert words in result.err, arguments
        assert result.out == "", arguments


async def test_a_wrong_setting_is_told_and_ends_with_2(bare: CommandLine) -> None:
    result = await bare("run", code=2, WORKER_LANES="0", WORKER_LOG_LEVEL="loud")
    assert "error: WORKER_LANES='0'" in result.err
    assert "WORKER_LOG_LEVEL='loud'" in result.err


async def test_servers_that_are_away_are_told_and_end_with_4(bare: CommandLine) -> None:
    away = {
        "WORKER_BROKER__URL": "amqp://ann:secret@127.0.0.1:1/",
        "WORKER_DATABASE__URL": "postgresql+asyncpg://ann:secret@127.0.0.1:1/none",
        "PYTHONPROFILEIMPORTTIME": "1",
    }
    commands = [
        "publish user.delete --target id=1",
        "watch",
        "dead-letters list",
        "ledger show x",
        "migrate",
    ]
    results = await asyncio.gather(
        *(bare(*command.split(), code=4, **away) for command in commands)
    )
    told, imported = zip(*map(_without_imports, results), strict=True)
    assert all(words.startswith("error: RabbitMQ cannot be reached") for words in told[:3])
    assert all(words.startswith("error: PostgreSQL cannot be reached") for words in told[3:])
    assert not any("secret" in words for words in told)
    # Nobody waits for what only `worker run` and `worker migrate` need.
    assert not any({"aiohttp", "prometheus_client", "alembic"} & found for found in imported[:4])
    assert "alembic" in imported[4]


def _without_imports(result: Result) -> tuple[str, set[str]]:
    """What a command said, and which modules it imported."""
    said, imported = "", set()
    for line in result.err.splitlines(keepends=True):
        if line.startswith("import time:"):
            imported.add(line.rpartition("|")[2].strip())
        else:
            said += line
    return said, imported


async def test_an_unexpected_error_is_one_line_and_debug_shows_where(bare: CommandLine) -> None:
    broken = {"WORKER_ENTITIES": "tests.support.broken_entities"}
    brief = await bare("schema", code=1, **broken)
    assert brief.err.count("\n") == 1
    assert "unexpected ZeroDivisionError: division by zero, while 'tests.support" in brief.err
    assert "WORKER_ENTITIES" in brief.err
    assert "WORKER_LOG_LEVEL=debug" in brief.err

    async with bare.running("schema", WORKER_LOG_LEVEL="debug", **broken) as running:
        full = await running.end()
    assert full.code == 1
    assert "Traceback" in full.err
    assert "broken_entities.py" in full.err
