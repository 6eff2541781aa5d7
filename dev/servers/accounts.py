"""Under which user a private server runs, and where that user can reach its files.

PostgreSQL refuses to run as root, and a broker should not. So root starts them under an account
without rights, and everybody else under their own.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dev.servers.errors import ServerError

OUTSIDE = Path("/var/tmp")
_PREFIX = "worker-services-"
_ORIGIN = "origin"


@dataclass(frozen=True)
class Account:
    """A user without rights, and its group."""

    uid: int
    gid: int


def account_for(preferred: str) -> Account | None:
    """The package's own user, else `nobody`; None means: as ourselves, we are not root."""
    if os.geteuid() != 0:
        return None
    for name in (preferred, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise ServerError(
        f"Servers do not run as root, and there is neither a user {preferred} nor a user nobody: "
        f"make one with `useradd --system {preferred}`."
    )


def reachable(directory: Path, account: Account | None) -> bool:
    """Whether the account can come to the directory, asked by going there as that account."""
    if account is None:
        return True
    return not subprocess.run(
        ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(directory)],
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    ).returncode


def place_for(directory: Path, account: Account | None) -> Path:
    """Where the server's files go: into the directory, or outside if the account cannot reach it.

    A checkout below /root, or a test's temporary directory (pytest makes them 0700), is closed to
    every other user. The place outside is always the same one for the same directory.
    """
    if reachable(directory, account):
        return directory / "state"
    outside = outside_of(directory)
    try:
        outside.mkdir()
    except FileExistsError:
        # Everybody may write to /var/tmp: something put there by another user is a trap.
        found = outside.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ServerError(f"{outside} is not ours: have a look at it and remove it.") from None
    outside.chmod(0o755)
    (outside / _ORIGIN).write_text(str(directory), encoding="utf-8")
    return outside / "state"


def outside_of(directory: Path) -> Path:
    """The place outside for this directory, whether it exists or not."""
    return OUTSIDE / f"{_PREFIX}{digest(directory)}"


def digest(directory: Path) -> str:
    """A short name that differs from directory to directory."""
    return hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]


def own(state: Path, account: Account | None) -> None:
    """Make the directory of a server's files, its user's own; a copied tree changes hands."""
    state.mkdir(mode=0o700, exist_ok=True)
    if account is None or state.stat().st_uid == account.uid:
        return
    for parent, _, names in os.walk(state):
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def sweep(in_use: Callable[[Path], bool]) -> None:
    """Remove our places outside whose directory is gone, such as those of old test runs."""
    for outside in OUTSIDE.glob(f"{_PREFIX}*"):
        try:
            mine = outside.lstat().st_uid == os.geteuid()
            origin = Path((outside / _ORIGIN).read_text(encoding="utf-8"))
        except OSError:
            continue
        if mine and not origin.exists() and not in_use(outside):
            shutil.rmtree(outside, ignore_errors=True)
