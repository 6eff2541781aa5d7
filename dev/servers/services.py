"""What the commands do, on the servers of one checkout."""

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dev.servers import environment
from dev.servers.commands import Runner, run
from dev.servers.compose import Compose
from dev.servers.debian import RELEASE
from dev.servers.environment import BROKER, DATABASE, Urls, redacted
from dev.servers.errors import MISUSED, ServerError
from dev.servers.locks import InUse, alone
from dev.servers.sources import ComposeSource, PrivateSource, Source, choose

_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True)
class Found:
    """The servers to use, and where they come from; the user's own have no source."""

    urls: Urls
    source: Source | None

    def __str__(self) -> str:
        if self.source is None:
            return f"{redacted(self.urls.broker)} and {redacted(self.urls.database)} (as told)"
        return f"{self.urls.broker} and {self.urls.database} ({self.source.name})"


class Services:
    """Everything is remembered in `.services/` of the repository.

    Within another Debian release (dev.servers.debian) in a folder of that name in there, and
    the servers are then always those of the release.
    """

    def __init__(
        self, repository: Path, environ: Mapping[str, str] = os.environ, runner: Runner = run
    ) -> None:
        self._repository = repository
        self._release = release = environ.get(RELEASE, "")
        self.directory = repository / ".services" / release
        self.shell_file = self.directory / "env"
        # Another terminal is outside of the release, with the programs of this machine.
        self._programs_outside = repository / ".venv" / "bin"
        venv = self.directory / "venv" / "bin"
        self.programs = venv if release else self._programs_outside
        self._environ = environ
        self._runner = runner
        self._compose = Compose(repository, runner)
        self._lock = self.directory / "lock"
        self._in_use = InUse(self.directory / "in-use")

    def up(self, *, keep: bool, use: bool = False) -> Found:
        """Have both servers answering. With `use` they are ours until `done`."""
        self._check_ours()
        with alone(self._lock):
            found = self._find(keep=keep)
            if use:
                self._in_use.begin()
        return found

    def done(self) -> list[str]:
        """After `up(use=True)`: stop what was started for this, unless somebody needs it."""
        with alone(self._lock):
            return self._stop(kept=False) if self._in_use.end() else []

    def down(self) -> list[str]:
        """Stop everything that was started from this checkout; the data stay."""
        if not self.directory.exists():
            return []
        self._check_ours()
        stopped = [name for inner in self._releases() for name in inner.down()]
        with alone(self._lock):
            return stopped + self._stop(kept=True)

    def clean(self) -> list[str]:
        """Stop everything and forget it, data and roots of other Debian releases included."""
        if not self.directory.exists():
            return []
        self._check_ours()
        stopped = [name for inner in self._releases() for name in inner.clean()]
        with alone(self._lock):
            stopped += self._stop(kept=True)
            PrivateSource(self.directory).remove()
            shutil.rmtree(self.directory)
        return stopped

    def status(self) -> tuple[list[str], bool]:
        """What `up` would use now, line by line, and whether both answer."""
        told = self._told()
        if told is None:
            source = self._source()
            lines = source.describe()
            healthy = all(line.endswith(("(answers)", ": running")) for line in lines)
            return [f"servers: {source.name}", *lines], healthy
        lines, healthy = ["servers: named by the environment"], True
        for variable, url in told.variables().items():
            trouble = _trouble(url)
            healthy = healthy and not trouble
            lines.append(f"{variable}: {redacted(url)} ({trouble or 'answers'})")
        return lines, healthy

    def command_environment(self, urls: Urls) -> dict[str, str]:
        """The environment of a command that is to find the servers, and our programs."""
        path = self._environ.get("PATH", os.defpath)
        if not path.startswith(f"{self.programs}{os.pathsep}"):
            path = f"{self.programs}{os.pathsep}{path}"
        return {**self._environ, **urls.variables(), "PATH": path}

    def _find(self, *, keep: bool) -> Found:
        told = self._told()
        if told is None:
            source = self._source()
            found = Found(source.up(keep=keep), source)
            environment.remember(self.directory, found.urls)
        else:
            found = Found(told, None)
            _check_answers(told)
        environment.write_shell_file(self.shell_file, found.urls, self._programs_outside)
        return found

    def _source(self) -> Source:
        private = PrivateSource(self.directory)
        if self._release:
            return private
        return choose(private, lambda: self._compose, self.directory)

    def _releases(self) -> list["Services"]:
        """Those of other Debian releases, whose processes can be seen and ended from outside."""
        roots = sorted((self.directory / "roots").glob("[a-z]*/"))
        return [Services(self._repository, {RELEASE: root.name}, self._runner) for root in roots]

    def _told(self) -> Urls | None:
        if self._release:
            return None
        return environment.told(self._environ, environment.exported(self.directory))

    def _stop(self, *, kept: bool) -> list[str]:
        sources: list[Source] = [
            PrivateSource(self.directory),
            ComposeSource(self.directory, self._compose),
        ]
        return [name for source in sources for name in source.down(kept=kept)]

    def _check_ours(self) -> None:
        """A checkout that root has used is closed to others, and that should be said clearly."""
        existing = self.directory if self.directory.exists() else self.directory.parent
        if not os.access(existing, os.W_OK):
            raise ServerError(
                f"{existing} belongs to another user: run this as that user, "
                f"or let them run `python -m dev.servers clean`."
            )


def _check_answers(urls: Urls) -> None:
    for variable, url in urls.variables().items():
        if trouble := _trouble(url):
            raise ServerError(
                f"{variable} names {redacted(url)}, which {trouble}: start that server, or run "
                f"`unset {BROKER} {DATABASE}` to get servers of this checkout."
            )


def _trouble(url: str) -> str:
    """Why nobody can be reached there; empty if somebody can, or if only a driver could tell."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 5432)
    except ValueError as error:
        raise ServerError(f"{redacted(url)} is not a URL: {error}.", code=MISUSED) from None
    if not parts.hostname:
        return ""
    try:
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except OSError as error:
        return f"does not answer ({error.strerror or error})"
    return ""
