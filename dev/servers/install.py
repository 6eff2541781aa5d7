"""Installing the servers' packages on Debian and Ubuntu, without starting what they bring."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.servers.commands import Runner, run
from dev.servers.errors import ServerError
from dev.servers.progress import say, step

PACKAGES = {
    "debootstrap": "debootstrap",  # for servers of another Debian release, and for the image
    "RabbitMQ": "rabbitmq-server",
    "PostgreSQL": "postgresql",
    "PgBouncer": "pgbouncer",  # for its own tests only
    "buildah": "buildah",  # for the image
}
POLICY = Path("/usr/sbin/policy-rc.d")
# Debian asks this script before a package starts its daemon; 101 is its "no".
_NO = "#!/bin/sh\n# Temporary, while `python -m dev.servers` installs packages.\nexit 101\n"
_SECONDS = 900.0


class Apt:
    """Debian's installer, as root or through sudo that asks for no password."""

    def __init__(
        self,
        log: Path,
        *,
        runner: Runner = run,
        which: Callable[[str], str | None] = shutil.which,
        uid: int | None = None,
        policy: Path = POLICY,
    ) -> None:
        self._log = log
        self._run = runner
        self._which = which
        self._uid = os.geteuid() if uid is None else uid
        self._policy = policy

    def prefix(self) -> list[str] | None:
        """What makes a command a root's command; None if apt-get is not for us."""
        if not self._which("apt-get"):
            return None
        if self._uid == 0:
            return []
        if self._which("sudo") and self._run(["sudo", "-n", "true"], 10.0).ok:
            return ["sudo", "-n"]
        return None

    def install(self, titles: Sequence[str]) -> None:
        """Install the packages of these servers, or say in one line what to install."""
        packages = [PACKAGES[title] for title in titles]
        prefix = self.prefix()
        if prefix is None:
            raise ServerError(_advice(titles, packages, apt=bool(self._which("apt-get"))))
        apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
        with self._no_daemons(prefix), step(f"installing {' and '.join(packages)} with apt-get"):
            # A failed update is no end yet: the lists that are there may do.
            self._log.write_text(self._run([*apt, "update"], _SECONDS).output, encoding="utf-8")
            done = self._run(
                [*apt, "install", "-y", "--no-install-recommends", *packages], _SECONDS
            )
            with self._log.open("a", encoding="utf-8") as log:
                log.write(done.output)
        if not done.ok:
            words = f"apt-get could not install {' and '.join(packages)} (exit {done.code}): "
            mend = f"try `sudo apt-get install {' '.join(packages)}` yourself."
            raise ServerError(words + mend, log=self._log)
        say(f"installed {' and '.join(packages)}; their own daemons were not started")

    @contextmanager
    def _no_daemons(self, prefix: Sequence[str]) -> Iterator[None]:
        """Keep packages from starting a server on the default port, where we use our own."""
        ours = False
        if not self._policy.exists():
            # noclobber: a file that somebody puts there at this very moment stays theirs.
            script = 'set -C && printf "%s" "$1" > "$2" && chmod 755 "$2"'
            argv = [*prefix, "sh", "-c", script, "sh", _NO, str(self._policy)]
            ours = self._run(argv, 10.0).ok
        elif self._policy.read_text(errors="replace") == _NO:
            ours = True  # left behind by one of us that was killed
        try:
            yield
        finally:
            if ours:
                self._run([*prefix, "rm", "-f", str(self._policy)], 10.0)


def _advice(titles: Sequence[str], packages: Sequence[str], *, apt: bool) -> str:
    missing = " and ".join(titles)
    mend = (
        f"run `sudo apt-get install --no-install-recommends {' '.join(packages)}`"
        if apt
        else f"install {missing} (on macOS: `brew install rabbitmq postgresql@17`)"
    )
    return (
        f"{missing} cannot be found on this machine and no Docker engine answers: {mend}, "
        "or start Docker, or set WORKER_BROKER__URL and WORKER_DATABASE__URL."
    )
