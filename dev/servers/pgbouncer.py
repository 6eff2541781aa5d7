"""A PgBouncer in transaction mode in front of all databases of a server, for tests."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, make_url

from dev.servers.ports import choose

READY_SECONDS = 10
LOOK_SECONDS = 0.02
UNPRIVILEGED = "nobody"
"""Whom it becomes where root starts it: PgBouncer does not run as root."""


def find_pgbouncer() -> str | None:
    """The program, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@asynccontextmanager
async def pgbouncer(server_url: str, *, pool_size: int) -> AsyncIterator[str]:
    """The address of the same database behind a PgBouncer, which ends with the block."""
    server, program = make_url(server_url), find_pgbouncer()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder, port, password = Path(name), choose(None), secrets.token_hex(16)
        users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"bouncer" "{password}"\n', encoding="utf-8")
        configuration.write_text(_configuration(server, users, port, pool_size), encoding="utf-8")
        options = []
        if os.geteuid() == 0:
            options = ["-u", UNPRIVILEGED]
            for path in (folder, users, configuration):
                shutil.chown(path, UNPRIVILEGED)
        process = await asyncio.create_subprocess_exec(
            program, *options, "-q", str(configuration), stdin=DEVNULL, stdout=DEVNULL,
            stderr=STDOUT,
        )  # fmt: skip
        try:
            await _until_ready(process, port)
            url = URL.create(
                "postgresql+asyncpg",
                "bouncer",
                password,
                host="127.0.0.1",
                port=port,
                database=server.database,
            )
            yield url.render_as_string(hide_password=False)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _configuration(server: URL, users: Path, port: int, pool_size: int) -> str:
    target = {"host": server.host, "port": server.port or 5432, "user": server.username}
    if server.password:
        target["password"] = server.password
    where = " ".join(f"{key}='{value}'" for key, value in target.items())
    return f"""\
[databases]
* = {where}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 10000
# What asyncpg sends with each connection, beside what PgBouncer knows.
ignore_startup_parameters = extra_float_digits
"""


async def _until_ready(process: Process, port: int) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            assert process.returncode is None, "PgBouncer ended at its start"
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(LOOK_SECONDS)
