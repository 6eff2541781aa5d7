"""The yardstick for the database: the worker's rows, one statement and one commit a command."""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import PIPE, STDOUT

from dev.benchmarks.arena import Arena, Place, fresh_arena
from dev.benchmarks.contender import Contender
from dev.benchmarks.drain import Run
from dev.benchmarks.process import ContenderFailed
from dev.benchmarks.tally import Tally
from dev.benchmarks.usage import Meter
from dev.databases import dsn

CLIENTS, THREADS = 20, 2

# A user, and the ledger's row of the command with an event of the usual length.
STATEMENT = """
WITH made AS (
  INSERT INTO users (username, email, rating)
  SELECT 'user-' || name, 'user-' || name || '@example.com', 4.5
  FROM (SELECT gen_random_uuid()::text AS name) AS names
  RETURNING id
)
INSERT INTO command_ledger (command_id, digest, outcome, event_id, event_type, event_body)
SELECT gen_random_uuid()::text, decode(repeat('00', 32), 'hex'), 'done', gen_random_uuid(),
       'user.created', repeat('x', 480)
FROM made;
"""


async def press(contender: Contender, place: Place, *, commands: int) -> Run:
    """Run pgbench for that many transactions; the rate is the one that it prints.

    Raises `ContenderFailed` if it fails.
    """
    each = max(1, commands // CLIENTS)
    done = each * CLIENTS
    async with fresh_arena(place) as arena:
        meter = Meter(arena.broker_url, arena.database_url)
        before = meter.read()
        output = await _pgbench(contender, arena, each)
        used = meter.read().since(before)
        found = re.search(r"tps = ([\d.]+)", output)
        if found is None:
            raise ContenderFailed(f"{contender.name}: prints no rate:\n{output}")
        return Run(
            contender=contender.name,
            commands=done,
            rate=float(found[1]),
            usage=used.per(done),
            peak_bytes=None,
            tally=Tally(rows_off=await arena.users() - done),
        )


async def _pgbench(contender: Contender, arena: Arena, transactions: int) -> str:
    options = f"--no-vacuum --protocol=prepared --client={CLIENTS} --jobs={THREADS}".split()
    process = await asyncio.create_subprocess_exec(
        *contender.argv,
        *options,
        f"--transactions={transactions}",
        "--file=-",
        dsn(arena.database_url),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
    )
    output, _ = await process.communicate(STATEMENT.encode())
    if process.returncode:
        raise ContenderFailed(
            f"{contender.name}: exit code {process.returncode}:\n{output.decode()}"
        )
    return output.decode()
