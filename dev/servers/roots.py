"""The root of another Debian release: its programs in a folder of ours, made once."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from dev.servers.commands import Runner, run
from dev.servers.errors import MISUSED, ServerError
from dev.servers.install import Apt
from dev.servers.locks import alone
from dev.servers.progress import say, step

PACKAGES = ("rabbitmq-server", "postgresql", "pgbouncer", "python3-venv", "ca-certificates")
_SHOWN = ("rabbitmq-server", "postgresql", "pgbouncer", "python3")
_SECONDS = 1800.0
# In namespaces of its own, so that whatever ends this, no process and no mount is left of it.
_ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# debootstrap asks for the simplest of packages only: it does not weigh alternatives, apt-get does.
# No package's daemon is started (policy-rc.d), and no cluster of PostgreSQL's made. Files are not
# synced to disk: after a power cut the root would be fetched again.
_MAKE = """\
root=$1 release=$2 mirror=$3; shift 3
export DEBIAN_FRONTEND=noninteractive DPKG_FORCE=unsafe-io
debootstrap --variant=minbase "$release" "$root" ${mirror:+"$mirror"}
printf '#!/bin/sh\\nexit 101\\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/etc/postgresql-common"
echo 'create_main_cluster = false' > "$root/etc/postgresql-common/createcluster.conf"
mount -t proc proc "$root/proc"
chroot "$root" apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold "$@"
chroot "$root" apt-get clean
"""


class Root:
    """`.services/roots/RELEASE`: RabbitMQ, PostgreSQL, PgBouncer and Python of that release.

    Only root can make and use it, and only where apt-get can install debootstrap.
    """

    def __init__(
        self,
        services: Path,
        release: str,
        *,
        runner: Runner = run,
        which: Callable[[str], str | None] = shutil.which,
        uid: int | None = None,
    ) -> None:
        # A word from the command line that becomes the name of a folder.
        if not re.fullmatch(r"[a-z]+", release):
            words = f"{release!r} is no Debian release: name one such as trixie or sid."
            raise ServerError(words, code=MISUSED)
        self.release = release
        self.path = services / "roots" / release
        self._services = services
        self._run = runner
        self._which = which
        self._uid = os.geteuid() if uid is None else uid

    def ensure(self) -> None:
        """Make it unless it is there; of several at once one does, and the others wait."""
        self._check_rights()
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(self.path.parent / f"{self.release}.lock"):
            if not self.path.exists():
                self._make()

    def versions(self) -> str:
        """What of interest is in it, in words."""
        show = [
            "dpkg-query",
            f"--root={self.path}",
            "--show",
            "--showformat=${Package} ${Version}\\n",
        ]
        told = self._run([*show, *_SHOWN], 30.0).output
        return ", ".join(line for line in told.splitlines() if line.startswith(_SHOWN))

    def _check_rights(self) -> None:
        if self._uid != 0:
            command = "`sudo make … debian=" + self.release + "`"
            raise ServerError(f"Only root can enter another Debian release: {command}.")
        if not self._which("unshare") or not self._run(["unshare", "--mount", "true"], 10.0).ok:
            raise ServerError(
                "Another Debian release needs Linux and the right to mount (CAP_SYS_ADMIN), which "
                "is missing here, as in most containers: use a machine, or leave out `debian=`."
            )

    def _make(self) -> None:
        if not self._which("debootstrap"):
            apt = Apt(self._services / "apt.log", runner=self._run, which=self._which, uid=0)
            if apt.prefix() is None:
                raise ServerError(
                    "Another Debian release is fetched with debootstrap, which is not on this "
                    "machine, and apt-get is neither: use a Debian or Ubuntu."
                )
            apt.install(["debootstrap"])
        # Under another name until it is whole: an interrupted one is begun anew.
        fresh, log = self.path.with_name(f".{self.release}.new"), self.path.with_suffix(".log")
        shutil.rmtree(fresh, ignore_errors=True)
        script = [*_ISOLATED, "sh", "-ec", _MAKE, "sh", str(fresh), self.release]
        with step(f"fetching Debian {self.release}, once; about 2 minutes"):
            done = self._run([*script, self._mirror(), *PACKAGES], _SECONDS)
        log.write_text(done.output, encoding="utf-8")
        if not done.ok:
            words = f"Debian {self.release} could not be fetched (exit {done.code})."
            raise ServerError(words, log=log)
        fresh.rename(self.path)
        say(f"Debian {self.release} is in {self.path}: {self.versions()}")

    def _mirror(self) -> str:
        """Where this machine gets its own Debian packages; empty: debootstrap's default."""
        form = "$(LABEL) $(REPO_URI)"
        asked = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
        told = self._run(asked, 30.0)
        rows = [line.split() for line in told.output.splitlines()] if told.ok else []
        return next((row[1] for row in rows if len(row) == 2 and row[0] == "Debian"), "")
