"""A server of our own: started from the machine's binaries, and broken at will by tests."""

import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from dev.servers import accounts, ports, processes
from dev.servers import record as records
from dev.servers.accounts import Account
from dev.servers.errors import ServerError
from dev.servers.guard import Guard


class PrivateServer(ABC):
    """One server process and its helpers, with ports and data that last over restarts.

    `directory` is where its record, log and data are (data outside if the server's user cannot
    reach it). Every method blocks; none is meant to run beside another one of the same server.
    With `outlive` the server lives on when this process ends, otherwise it ends as well.
    """

    title: ClassVar[str]
    preferred_user: ClassVar[str]
    port_names: ClassVar[Sequence[str]] = ("main",)
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    start_seconds: float = 60.0
    stop_seconds: float = 15.0

    def __init__(self, directory: Path, port: int | None, *, outlive: bool) -> None:
        self.directory = directory.resolve()
        self.log = self.directory / "server.log"
        self.record = records.load(self.directory)
        self._fixed_port = port
        self._outlive = outlive
        self._guard: Guard | None = None
        if port is not None:
            self.record.ports["main"] = port
        if "main" not in self.record.ports:
            self.record.ports["main"] = ports.choose(None)

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The server that was started in this directory, perhaps by another process."""
        return cls(directory, None, outlive=True)

    # What differs from server to server, and what that is built of

    @property
    @abstractmethod
    def url(self) -> str:
        """What the worker's setting wants."""

    @abstractmethod
    def find_binaries(self) -> Path | None:
        """Where the server's programs are on this machine."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the files without which the server cannot start."""

    @abstractmethod
    def spawn(self) -> None:
        """`begin` the processes; the one called `main` is the server."""

    @abstractmethod
    def owns(self, process: processes.Process) -> bool:
        """Whether a row of the process table is this server or a part of it."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client would be served at this moment."""

    def begin(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a process of this server, and remember it at once: we may be interrupted."""
        child = processes.spawn(
            argv,
            account=self.account,
            environment=environment,
            directory=self.state,
            log=self.log,
        )
        self.record.pids[name] = child.pid
        self.record.save()
        return child

    # What tests and commands use

    @property
    def port(self) -> int:
        """The port for clients. It may change in `start`, if something else has taken it."""
        return self.record.ports["main"]

    @property
    def running(self) -> bool:
        """Whether the process is there, be it frozen or busy."""
        main = self.record.pids.get("main", -1)
        # Of a child of ours no doubt is possible, while the command line of a process is empty
        # for a moment whenever it turns from one program into the next.
        if processes.living_child(main):
            return True
        found = processes.table().get(main)
        return found is not None and self.owns(found)

    @property
    def pid(self) -> int:
        """The process that all others of this server come from."""
        if not self.running:
            raise ServerError(f"{self.title} in {self.directory} is not running.")
        return self.record.pids["main"]

    def start(self) -> None:
        """Return once it answers; nothing happens if it does so already."""
        self.launch()
        self.wait()

    def launch(self) -> bool:
        """Begin to start, without waiting; False if it is running already."""
        if self.running:
            self.thaw()
            return False
        if self.binaries is None:
            raise ServerError(f"{self.title} is not installed on this machine.")
        self.directory.mkdir(parents=True, exist_ok=True)
        # After a crash its helpers may linger, and hold shared memory or a port.
        processes.end(self._family)
        self._settle_ports()
        accounts.own(self.state, self.account)
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        self.record.save()
        if not self._outlive and self._guard is None:
            self._guard = Guard(type(self), self.directory)
        try:
            self.prepare()
            self.spawn()
        except BaseException:
            self.kill()
            raise
        return True

    def wait(self) -> None:
        """Return once it answers; raise with the end of its log if it ends or stays silent."""
        deadline = time.monotonic() + self.start_seconds
        while True:
            if not self.running:
                self.kill()
                raise ServerError(f"{self.title} ended while it started.", log=self.log)
            if self.answers():
                return
            if time.monotonic() > deadline:
                self.kill()
                words = f"{self.title} gave no answer in {self.start_seconds:.0f} s and was ended."
                raise ServerError(words, log=self.log)
            time.sleep(0.03)

    def stop(self) -> None:
        """End it cleanly, data safe; nothing happens if it is not running."""
        self._release_guard()
        if self.running:
            self.thaw()
            main = self.record.pids["main"]
            processes.send([main], self.stop_signal)
            processes.until(lambda: not self.running, within=self.stop_seconds)
        self._forget()

    def kill(self) -> None:
        """Crash it: SIGKILL to all its processes at once, back when they are gone."""
        self._release_guard()
        self._forget()

    def restart(self) -> None:
        """Stop and start, with the same port and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP all its processes: connections stay open and nobody answers."""
        processes.freeze(self._family)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        processes.send(self._family(), signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and delete its data, log and record, but nothing that others put beside."""
        self.stop()
        for place in (accounts.outside_of(self.directory), self.directory / "state"):
            shutil.rmtree(place, ignore_errors=True)
        for name in ("server.json", "server.log", "server.log.1"):
            (self.directory / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.directory.rmdir()
        # In a new directory, the place for the data is chosen anew.
        self.__dict__.pop("state", None)
        self.record.state = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # The inside

    @cached_property
    def account(self) -> Account | None:
        """The user it runs as."""
        return accounts.account_for(self.preferred_user)

    @cached_property
    def binaries(self) -> Path | None:
        """Looked for once, since it takes a walk over the machine."""
        return self.find_binaries()

    @cached_property
    def state(self) -> Path:
        """The directory that belongs to the server's user."""
        if not self.record.state:
            accounts.sweep(processes.anywhere)
            self.record.state = str(accounts.place_for(self.directory, self.account))
        return Path(self.record.state)

    def _family(self) -> list[int]:
        """All its processes, those included that a crash has made orphans."""
        rows = processes.table()
        children = (pid for pid in self.record.pids.values() if processes.living_child(pid))
        roots = {*children, *(pid for pid, row in rows.items() if self.owns(row))}
        return processes.with_descendants(sorted(roots), rows)

    def _forget(self) -> None:
        """End what is left of it, and with it the meaning of its process numbers."""
        processes.end(self._family)
        processes.reap()
        self.record.pids = {}
        if self.directory.exists():
            self.record.save()

    def _settle_ports(self) -> None:
        """The remembered ports, or others where something else has taken them meanwhile."""
        if self._fixed_port is not None and not ports.is_free(self._fixed_port):
            raise ServerError(f"Port {self._fixed_port} for {self.title} is taken: name another.")
        remembered = self.record.ports
        self.record.ports = {name: ports.choose(remembered.get(name)) for name in self.port_names}

    def _release_guard(self) -> None:
        if self._guard is not None:
            self._guard.release()
            self._guard = None
