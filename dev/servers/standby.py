"""A private PostgreSQL that follows another."""

import shutil
from pathlib import Path

from dev.servers.postgres import PrivatePostgres


class PrivateStandby(PrivatePostgres):
    """A hot standby: a copy of the primary's data, which then receives all that is written there.

    `primary` is its port; it must run at the first start.
    """

    def __init__(
        self, directory: Path, port: int | None = None, primary: int = 0, *, outlive: bool = False
    ) -> None:
        super().__init__(directory, port, outlive=outlive)
        self._primary = primary

    def prepare(self) -> None:
        self.data.parent.mkdir(exist_ok=True)
        if not self.data.exists():
            fresh = self.state / "data.new"
            shutil.rmtree(fresh, ignore_errors=True)
            where = ("-h", "127.0.0.1", "-p", str(self._primary), "-U", "worker")
            how = ("--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--no-password")
            self._helper("pg_basebackup", "-D", str(fresh), *where, *how)
            fresh.rename(self.data)
        super().prepare()

    def promote(self) -> None:
        """Return once it is a primary."""
        self._helper("pg_ctl", "promote", "-w", "-D", str(self.data))
