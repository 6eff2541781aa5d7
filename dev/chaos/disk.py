"""A disk for the tables, which can be made full: a tmpfs that is made as small as what it holds.

PostgreSQL then gets ENOSPC from the kernel itself. Mounting needs root; the mounts are made in a
namespace of the rig's own (`unshare --mount`), so that they vanish with its last process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from dev.servers.postgres import PrivatePostgres

ROOMY = "4g"
_APART = "CHAOS_APART"
_PAGE_BYTES = 4096


def go_apart() -> None:
    """Go on as the same program in a mount namespace of our own, where that is possible."""
    if os.environ.get(_APART) or os.geteuid() != 0:
        return
    apart = ["unshare", "--mount", "--propagation", "private", "--"]
    try:
        allowed = subprocess.run([*apart, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return
    if allowed:
        os.environ[_APART] = "1"
        os.execvp(apart[0], [*apart, sys.executable, *sys.orig_argv[1:]])


class Disk:
    """A tablespace of the database on a tmpfs."""

    def __init__(self, place: Path) -> None:
        self._place = place

    @classmethod
    async def mount(cls, place: Path, database: PrivatePostgres) -> Disk | None:
        """Mounted and given to the database's user; `None` where that is not allowed."""
        if os.environ.get(_APART) is None:
            return None
        await asyncio.to_thread(place.mkdir)
        if await _mount("-t", "tmpfs", "-o", f"size={ROOMY}", "chaos", str(place)):
            return None
        if database.account is not None:
            os.chown(place, database.account.uid, database.account.gid)
        os.chmod(place, 0o700)
        return cls(place)

    @property
    def path(self) -> Path:
        """Where it is mounted."""
        return self._place

    async def fill(self) -> None:
        """Leave no room for another page."""
        found = os.statvfs(self._place)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        await _mount("-o", f"remount,size={max(used, _PAGE_BYTES)}", str(self._place))

    async def enlarge(self) -> None:
        """Make room again."""
        await _mount("-o", f"remount,size={ROOMY}", str(self._place))

    async def unmount(self) -> None:
        """Leave nothing in the way of removing the server's files, used or not."""
        process = await asyncio.create_subprocess_exec("umount", "--lazy", str(self._place))
        await process.wait()


async def _mount(*arguments: str) -> int:
    process = await asyncio.create_subprocess_exec("mount", *arguments)
    return await process.wait()
