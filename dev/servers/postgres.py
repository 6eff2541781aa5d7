"""A private PostgreSQL."""

import glob
import re
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from dev.servers import accounts, processes
from dev.servers.errors import ServerError
from dev.servers.private import PrivateServer
from dev.servers.processes import Process

_PACKAGED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")


class PrivatePostgres(PrivateServer):
    """PostgreSQL with a database `worker` that belongs to the superuser `worker`, no password.

    Only the loopback address is served, so whoever can connect could read the files as well.
    `settings` are those of postgresql.conf; what is not named stays as users get it, fsync too.
    """

    title = "PostgreSQL"
    preferred_user: ClassVar[str] = "postgres"
    # "Fast": SIGTERM would wait until every client has gone by itself.
    stop_signal = signal.SIGINT

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        outlive: bool = False,
    ) -> None:
        super().__init__(directory, port, outlive=outlive)
        self._settings = dict(settings or {})
        # Stands in the title of every backend, which names no directory.
        self._cluster = f"worker-{accounts.digest(self.directory)}"

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://worker@127.0.0.1:{self.port}/worker"

    @property
    def data(self) -> Path:
        """The data directory of PostgreSQL."""
        return self.state / "data"

    def find_binaries(self) -> Path | None:
        return find_binaries()

    def prepare(self) -> None:
        self._fit_to_data()
        # A copied tree or a crash leaves it behind, and its number may be anybody's by now. That
        # no server runs on these data we know: `launch` has looked.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        if self.data.exists():
            return
        # Made under another name first, so that an interrupted one is never taken for whole.
        fresh = self.state / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        # Not synced to disk, which takes seconds: after a power cut it would be made again.
        initdb = ["initdb", "-D", str(fresh), "-U", "worker", "--auth=trust", "--no-sync"]
        try:
            self._helper(*initdb, "--encoding=UTF8", "--locale=C.UTF-8")
        except ServerError:
            # An older system without that locale; C knows upper and lower case of ASCII only.
            self._helper(*initdb, "--encoding=UTF8", "--locale=C")
        # The server's single-user mode spares us the need of a client, which may be missing.
        sql = "CREATE DATABASE worker OWNER worker;\n"
        self._helper("postgres", "--single", "-D", str(fresh), "postgres", stdin=sql)
        fresh.rename(self.data)

    def spawn(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",  # their paths may not be long, and nobody needs them
            "max_connections": "200",
            "cluster_name": self._cluster,
        } | self._settings
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        argv = [str(self._bin / "postgres"), "-D", str(self.data), *options]
        self.begin("main", argv, processes.clean_environment(self.state))

    def owns(self, process: Process) -> bool:
        if process.program == "postgres" and self.record.state:
            return process.has(f"-D {self.data}")
        return process.command.startswith(f"postgres: {self._cluster}: ")

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return _lets_us_in(connection)
        except OSError:
            return False

    @property
    def _bin(self) -> Path:
        if self.binaries is None:
            raise ServerError("PostgreSQL is not installed on this machine.")
        return self.binaries

    def _fit_to_data(self) -> None:
        """Data of one major version can be read by the programs of that version only."""
        try:
            made_by = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return
        self.binaries = find_binaries(made_by)
        if self.binaries is None:
            raise ServerError(
                f"The data in {self.data} were made by PostgreSQL {made_by}, "
                "whose programs are not on this machine any more."
            )

    def _helper(self, program: str, *arguments: str, stdin: str = "") -> None:
        done = processes.run(
            [str(self._bin / program), *arguments],
            account=self.account,
            environment=processes.clean_environment(self.state),
            directory=self.state,
            stdin=stdin,
            timeout=self.start_seconds,
        )
        if done.returncode:
            self.log.write_text(done.stdout, encoding="utf-8")
            raise ServerError(f"{program} could not prepare PostgreSQL.", log=self.log)


def find_binaries(major: str | None = None) -> Path | None:
    """The directory with `postgres` and `initdb`: the one on PATH, else the newest package."""
    found = [Path(path).resolve().parent for path in (shutil.which("postgres"),) if path]
    packaged = (Path(path) for pattern in _PACKAGED for path in glob.glob(pattern))
    found += sorted(packaged, key=_version_in_path, reverse=True)
    for directory in found:
        if not all((directory / name).exists() for name in ("postgres", "initdb")):
            continue
        if major is None or _major(directory) == major:
            return directory
    return None


def _version_in_path(directory: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", str(directory))]


def _major(directory: Path) -> str:
    argv = [str(directory / "postgres"), "--version"]
    words = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    number = re.search(r"\) (\d+)", words)
    return number[1] if number else ""


def _lets_us_in(connection: socket.socket) -> bool:
    """Log in as a client would: a listening port alone may still be replaying its log."""
    body = struct.pack("!I", 196608) + b"user\0worker\0database\0worker\0\0"
    connection.sendall(struct.pack("!I", len(body) + 4) + body)
    with connection.makefile("rb") as replies:
        while len(head := replies.read(5)) == 5:
            kind, length = struct.unpack("!cI", head)
            reply = replies.read(length - 4)
            if kind == b"Z":
                connection.sendall(b"X" + struct.pack("!I", 4))
                return True
            if kind == b"E":
                # Full up, but alive; any other refusal, such as "starting up", may pass.
                return b"\0C53300\0" in reply
    return False
