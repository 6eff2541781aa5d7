"""Where servers come from when the user names none: Docker, or processes of our own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from dev.servers.compose import SERVICES, Compose
from dev.servers.environment import Urls
from dev.servers.errors import ServerError
from dev.servers.install import Apt
from dev.servers.postgres import PrivatePostgres
from dev.servers.private import PrivateServer
from dev.servers.progress import step
from dev.servers.rabbitmq import PrivateRabbitMQ
from dev.servers.record import replace


class Source(Protocol):
    """Starts servers, and stops those only that it has started."""

    name: str

    def up(self, *, keep: bool) -> Urls:
        """Have both running; with `keep` they are meant to stay after this command."""
        ...

    def down(self, *, kept: bool) -> list[str]:
        """Stop what `up` started, with `kept` also what was meant to stay; say what it was."""
        ...

    def describe(self) -> list[str]:
        """One line for each server: what it is and whether it answers."""
        ...


class PrivateSource:
    """RabbitMQ and PostgreSQL of this checkout alone."""

    name = "private processes of this checkout"

    def __init__(self, services: Path) -> None:
        self.rabbitmq = PrivateRabbitMQ(services / "rabbitmq", outlive=True)
        self.postgres = PrivatePostgres(services / "postgresql", outlive=True)
        # The broker first: it takes longest, and starts while the database is being prepared.
        self.servers: Sequence[PrivateServer] = (self.rabbitmq, self.postgres)
        self._apt = Apt(services / "apt.log")

    @property
    def urls(self) -> Urls:
        return Urls(broker=self.rabbitmq.url, database=self.postgres.url)

    def running(self) -> bool:
        return any(server.running for server in self.servers)

    def up(self, *, keep: bool) -> Urls:
        self._install()
        absent = [server for server in self.servers if not server.running]
        for server in absent:
            server.record.keep = False
        titles = " and ".join(server.title for server in absent or self.servers)
        try:
            with step(f"{'starting' if absent else 'waiting for'} {titles}"):
                for server in self.servers:
                    server.launch()
                # The quicker one first: if it fails, that is known at once.
                for server in reversed(self.servers):
                    server.wait()
        except BaseException as error:
            # Also at a Ctrl-C: half of a pair is of no use to anybody.
            for server in absent:
                server.kill()
            if isinstance(error, ServerError):
                error.add("To start afresh, without its data: `python -m dev.servers clean`.")
            raise
        for server in self.servers:
            server.record.keep |= keep
            server.record.save()
        return self.urls

    def down(self, *, kept: bool) -> list[str]:
        doomed = [each for each in self.servers if each.running and (kept or not each.record.keep)]
        if doomed:
            with step(f"stopping {' and '.join(server.title for server in doomed)}"):
                for server in doomed:
                    server.stop()
        return [f"{server.title} (port {server.port})" for server in doomed]

    def remove(self) -> None:
        for server in self.servers:
            server.remove()

    def describe(self) -> list[str]:
        lines = []
        for server in self.servers:
            if server.running:
                state = "answers" if server.answers() else "gives no answer"
                lines.append(f"{server.title}: {server.url} ({state})")
            else:
                missing = "" if server.binaries else ", not installed on this machine"
                lines.append(f"{server.title}: (not running{missing})")
        return lines

    def _install(self) -> None:
        missing = [each for each in self.servers if each.binaries is None]
        if missing:
            self._apt.install([server.title for server in missing])
            for server in missing:
                del server.binaries  # the next use looks again


class ComposeSource:
    """Containers; which of them we started is remembered, since a user may start them, too."""

    name = "docker compose"

    def __init__(self, services: Path, compose: Compose) -> None:
        self._memory = services / "compose.json"
        self._compose = compose

    def up(self, *, keep: bool) -> Urls:
        running, started = self._compose.running(), self._started()
        for service in SERVICES:
            if service not in running:
                started[service] = keep
            elif service in started:
                started[service] |= keep
        # Before, not after: a Ctrl-C on the way leaves containers that `down` must know.
        self._remember(started)
        with step("starting broker and database with docker compose"):
            return self._compose.up()

    def down(self, *, kept: bool) -> list[str]:
        started = self._started()
        doomed = [service for service, keep in started.items() if kept or not keep]
        if doomed:
            with step(f"stopping {' and '.join(doomed)} with docker compose"):
                self._compose.stop(doomed)
            self._remember({name: started[name] for name in started.keys() - set(doomed)})
        return [f"{service} (docker compose)" for service in doomed]

    def describe(self) -> list[str]:
        running = self._compose.running()
        return [
            f"{service}: {'running' if service in running else 'not running'}"
            for service in SERVICES
        ]

    def _started(self) -> dict[str, bool]:
        try:
            kept: dict[str, bool] = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept

    def _remember(self, started: dict[str, bool]) -> None:
        replace(self._memory, json.dumps(started) + "\n")


def choose(private: PrivateSource, compose: Callable[[], Compose], services: Path) -> Source:
    """Docker if its engine answers, unless our own processes are up: two pairs would confuse."""
    if private.running():
        return private
    docker = compose()
    return ComposeSource(services, docker) if docker.answers() else private
