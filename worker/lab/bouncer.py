"""A PgBouncer of the run's own, in transaction mode, in front of the lab's database."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import sys
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from ssl import get_default_verify_paths

from sqlalchemy import URL, make_url

from worker.lab.processes import LabFailed
from worker.lab.scenario import BadScenario, Database
from worker.settings.settings import DatabaseSettings

NAME = "lab"
"""What PgBouncer calls the database, and the account that may use it."""

READY_SECONDS = 10
LOOK_SECONDS = 0.02
STOP_SECONDS = 5
MOST_CLIENTS = 10_000
UNPRIVILEGED = "nobody"
"""Whom it becomes where the lab is run by root: PgBouncer does not run as root."""


@asynccontextmanager
async def open_bouncer(settings: DatabaseSettings, part: Database) -> AsyncIterator[str | None]:
    """The database's address behind a PgBouncer, which ends with the block; `None` without one.

    Raises `BadScenario` where it is not installed, before any load is sent.
    """
    if part.through == "direct":
        yield None
        return
    server = make_url(settings.url.get_secret_value())
    if server.host is None:
        raise BadScenario(
            "database.through='pgbouncer' wants one host in WORKER_DATABASE__URL: name the primary"
        )
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise BadScenario(
            "database.through='pgbouncer' needs the program pgbouncer, which is not installed. "
            "On Debian or Ubuntu: apt-get install pgbouncer"
        )
    with tempfile.TemporaryDirectory(prefix="worker-lab-bouncer-") as name:
        folder, port, password = Path(name), _free_port(), secrets.token_hex(16)
        (folder / "users.txt").write_text(f'"{NAME}" "{password}"\n', encoding="utf-8")
        configuration = folder / "pgbouncer.ini"
        configuration.write_text(
            _configuration(server, folder, port, part.bouncer_pool_size) + _tls(settings, folder),
            encoding="utf-8",
        )
        process = await _start(program, configuration, folder)
        try:
            await _until_ready(process, port, folder)
            url = URL.create(
                "postgresql+asyncpg", NAME, password, host="127.0.0.1", port=port, database=NAME
            )
            yield url.render_as_string(hide_password=False)
        finally:
            await _end(process)


def _configuration(server: URL, folder: Path, port: int, pool_size: int) -> str:
    target = {
        "host": server.host,
        "port": server.port or 5432,
        "dbname": server.database,
        "user": server.username,
        "password": server.password,
    }
    where = " ".join(
        f"{key}='{str(value).replace(chr(39), chr(39) * 2)}'"
        for key, value in target.items()
        if value is not None
    )
    return f"""\
[databases]
{NAME} = {where}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder / "users.txt"}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = {MOST_CLIENTS}
# What asyncpg sends with each connection, beside what PgBouncer knows.
ignore_startup_parameters = extra_float_digits
"""


def _tls(settings: DatabaseSettings, folder: Path) -> str:
    """The worker's way to the server, with copies of its files: PgBouncer has a user of its own."""
    files, mode = settings.tls_files, settings.tls_mode or "prefer"
    lines = {"server_tls_sslmode": mode}
    authorities = files.ca or (mode.startswith("verify") and get_default_verify_paths().cafile)
    for name, path in {
        "server_tls_ca_file": authorities,
        "server_tls_cert_file": files.certificate,
        "server_tls_key_file": files.key or files.certificate,
    }.items():
        if path:
            lines[name] = str(folder / name)
            shutil.copyfile(path, folder / name)
            (folder / name).chmod(0o600)
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


async def _start(program: str, configuration: Path, folder: Path) -> Process:
    command = [program, *_unprivileged(folder), "-q", str(configuration)]
    with (folder / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=log, stderr=STDOUT
        )


def _unprivileged(folder: Path) -> list[str]:
    """Options for root, and the folder for whom they name."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return []
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, UNPRIVILEGED)
    return ["-u", UNPRIVILEGED]


async def _until_ready(process: Process, port: int, folder: Path) -> None:
    try:
        async with asyncio.timeout(READY_SECONDS):
            while True:
                if process.returncode is not None:
                    words = (folder / "log").read_text(errors="replace").strip().splitlines()
                    raise LabFailed(f"PgBouncer ended at its start: {words[-1] if words else '?'}")
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise LabFailed(f"PgBouncer was not ready within {READY_SECONDS} s") from error


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
