"""`worker doctor` finds each planted fault, says what mends it, and finds no fault that is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.commandline import CommandLine, Result
from tests.support.harness import Harness
from worker.broker.topology import Topology

KEYS = {"code", "what", "why", "fix", "level"}


async def examine(cli: CommandLine, *options: str, **environment: str) -> dict[str, dict[str, Any]]:
    """The findings by their codes."""
    result = await cli("doctor", "--json", *options, code=None, **environment)
    return check(result)


def check(result: Result) -> dict[str, dict[str, Any]]:
    problems = [line["code"] for line in result.lines if line["level"] == "problem"]
    assert all(line.keys() == KEYS and all(line.values()) for line in result.lines), result.out
    assert not any("could not be looked at" in line["what"] for line in result.lines), result.out
    assert result.code == bool(problems), result.err
    return {line["code"]: line for line in result.lines}


def problems(found: dict[str, dict[str, Any]]) -> set[str]:
    """Without what the tests' own server is set to: it need not survive a loss of power."""
    return {code for code, it in found.items() if it["level"] == "problem"} - {"durability"}


async def test_where_all_is_well_there_is_no_problem(cli: CommandLine, harness: Harness) -> None:
    async with harness.worker():
        await harness.send("user.fly")
        await harness.next_event(after=0)
        found = await examine(cli)
        words = await cli("doctor", code=None)

    assert problems(found) == set()
    assert found["dead_letters"]["fix"] == "worker dead-letters list"
    assert "no_worker" not in found
    assert "missing_object" not in found
    assert "  mend: worker dead-letters list" in words.out
    assert "note" in words.err


async def test_before_anything_was_started_there_are_notes(
    cli: CommandLine, harness: Harness
) -> None:
    found = await examine(cli)
    assert problems(found) == set()
    assert found["missing_object"]["fix"] == "worker run"

    await Topology.of(harness.settings).ensure(harness.connection)
    await harness.send("user.fly")
    found = await examine(cli)
    assert problems(found) == set()
    assert "1 commands wait" in found["no_worker"]["what"]


async def test_what_is_wrong_with_the_queues_is_found_and_left_as_it_is(
    cli: CommandLine, harness: Harness
) -> None:
    found = await examine(cli, WORKER_BROKER__DECLARE="false")
    assert problems(found) == {"missing_object"}
    async with harness.connection.channel() as channel:
        topology = Topology.of(harness.settings)
        arguments = {**topology.queues[topology.commands], "x-delivery-limit": 30}
        await channel.declare_queue(topology.commands, durable=True, arguments=arguments)
    found = await examine(cli)

    assert problems(found) == {"topology"}
    assert "x-delivery-limit is '30'" in found["topology"]["what"]
    assert "DELIVERY_LIMIT" in found["topology"]["fix"]
    assert "missing_object" in found, "it made the others"


@pytest.mark.long
@pytest.mark.parametrize(
    ("statement", "code", "fix"),
    [
        ("ALTER DATABASE {name} SET synchronous_commit = off", "durability", "ALTER SYSTEM SET"),
        (
            "ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'",
            *("isolation", "SET default_transaction_isolation = 'read committed'"),
        ),
        (
            "SELECT setval(pg_get_serial_sequence('users', 'id'), 9000000000000000000)",
            *("sequence", "ALTER SEQUENCE public.users_id_seq"),
        ),
        ("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "write_hook", "\\d orders"),
        ("CREATE RULE no AS ON DELETE TO users DO INSTEAD NOTHING", "write_hook", "\\d users"),
        (
            "CREATE TRIGGER same BEFORE UPDATE ON users FOR EACH ROW"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            *("write_hook", "\\d users"),
        ),
        (
            "DROP INDEX ix_orders_user_id",
            *("reference_without_index", 'CREATE INDEX CONCURRENTLY ON orders ("user_id")'),
        ),
        ("DROP TABLE alembic_version", "schema", "worker migrate"),
        ("DROP TABLE orders", "schema", "docs/entities.md"),
    ],
)
async def test_each_fault_planted_in_the_database_is_found(
    cli: CommandLine, harness: Harness, statement: str, code: str, fix: str
) -> None:
    before = await examine(cli)
    (row,) = await harness.rows("SELECT current_database() AS name")
    await harness.rows(statement.format(**row))
    found = await examine(cli)

    assert code not in before or code == "durability"
    assert fix in found[code]["fix"]


async def test_too_many_connections_are_found(cli: CommandLine) -> None:
    found = await examine(cli, "--processes", "1000")

    assert "1000 × (pool_size" in found["connections"]["what"]
    assert "max_connections" in found["connections"]["fix"]


async def test_servers_that_cannot_be_reached_are_found_with_what_mends_it(
    cli: CommandLine,
) -> None:
    found = await examine(
        cli,
        WORKER_BROKER__URL="amqp://guest:secret@127.0.0.1:1/",
        WORKER_DATABASE__URL="postgresql+asyncpg://ann:secret@127.0.0.1:1/x",
    )

    assert problems(found) == {"broker", "database"}
    assert "WORKER_BROKER__URL" in found["broker"]["fix"]
    assert "secret" not in str(found)


async def test_a_wrong_setting_is_a_finding(cli: CommandLine) -> None:
    found = await examine(cli, WORKER_LANES="0")

    assert problems(found) == {"settings"}
    assert "WORKER_LANES" in found["settings"]["what"]
