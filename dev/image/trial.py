"""A container of the image migrates, runs, is healthy, answers a command, and stops in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.databases import fresh_database
from dev.image.build import IMAGE
from dev.image.buildah import Buildah
from dev.servers import ports, processes
from dev.servers.errors import ServerError
from dev.servers.progress import say
from worker import __version__
from worker.broker.client.client import remove
from worker.broker.connection import connect
from worker.broker.topology import Topology
from worker.settings.settings import Settings

READY_SECONDS = 60.0
STOP_SECONDS = 30.0


def trial(buildah: Buildah) -> None:
    """Raise `ServerError` where the image does not do what it must; leaves nothing behind."""
    asyncio.run(_with_database(buildah, f"image-{uuid.uuid4().hex[:8]}"))


async def _with_database(buildah: Buildah, name: str) -> None:
    async with fresh_database(os.environ["WORKER_DATABASE__URL"], name) as database:
        variables = {
            "WORKER_BROKER__URL": os.environ["WORKER_BROKER__URL"],
            "WORKER_DATABASE__URL": database,
            "WORKER_NAMESPACE": name,
            "WORKER_HEALTH__PORT": str(ports.choose(None)),
        }
        try:
            with buildah.container(IMAGE) as container:
                await asyncio.to_thread(Trial(buildah, container, variables).run)
        finally:
            await _remove_queues(name)


async def _remove_queues(namespace: str) -> None:
    broker = Settings(namespace=namespace).broker
    async with connect(broker, namespace) as connection:
        await remove(connection, Topology(namespace, broker))


class Trial:
    """One container, and what is tried with it."""

    def __init__(self, buildah: Buildah, container: str, variables: dict[str, str]) -> None:
        self._buildah = buildah
        self._container = container
        self._variables = variables
        self._image = buildah.configuration(IMAGE)
        self._log = buildah.place / "worker.log"

    def run(self) -> None:
        """All of it, in order."""
        self._holds_only_what_it_needs()
        self._ends(["worker", "--version"], "", f"worker {__version__}")
        self._ends(["worker", "health"], "nobody answers", code=1)
        self._ends(["worker", "migrate"], "the schema was brought from nothing")
        with self._running() as worker:
            # What the image itself says is its health check; then whether it can work.
            kind, *check = self._image["Healthcheck"]["Test"]
            _expect(kind == "CMD", f"the health check is of kind {kind}, not CMD")
            self._succeeds(check, worker)
            self._succeeds(["worker", "health"], worker)
            user = ["username=ann", "email=ann@example.com"]
            event = self._ends(["worker", "publish", "user.create", *user, "--wait"])
            _expect(json.loads(event)["type"] == "user.created", f"the event is {event}")
            say(f"a worker in the image answered: {event[:120]} …")
            self._stops(worker)

    def _holds_only_what_it_needs(self) -> None:
        _expect(self._image["User"] == "10001", f"its user is {self._image['User']!r}, not 10001")
        told = [line for line in self._image["Env"] if line.startswith(("PIP_", "UV_"))]
        _expect(not told, "its environment says where packages come from")
        root = Path(self._buildah("mount", self._container))
        left = [
            path for path in ("etc/pip.conf", "src", "dist", "opt/build") if (root / path).exists()
        ]
        _expect(not left, f"the build left behind {left}")
        self._ends(["python", "-c", "import hatchling"], "No module named 'hatchling'", code=1)

    def _ends(self, command: Sequence[str], err: str = "", out: str = "", *, code: int = 0) -> str:
        """Run a command to its end, which must be with that code and these words; its stdout."""
        done = self._done(command)
        found = done.returncode == code and err in done.stderr and out in done.stdout
        words = f"`{' '.join(command)}` ended with {done.returncode}: {done.stdout}{done.stderr}"
        _expect(found, words)
        return done.stdout

    def _succeeds(self, command: Sequence[str], worker: subprocess.Popen[bytes]) -> None:
        """Run a command until it succeeds, while the worker runs."""

        def succeeded() -> bool:
            return worker.poll() is not None or self._done(command).returncode == 0

        in_time = processes.until(succeeded, within=READY_SECONDS)
        _expect(in_time, f"`{' '.join(command)}` did not succeed in {READY_SECONDS:.0f} s")
        if worker.poll() is not None:
            raise ServerError("The worker in the image ended.", log=self._log, code=1)

    def _done(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._inside(command),
            env=self._buildah.environment,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
            check=False,
        )

    @contextmanager
    def _running(self) -> Iterator[subprocess.Popen[bytes]]:
        """What the image does when it is started without a word; killed in the end if it runs."""
        command = [*self._image["Entrypoint"], *self._image["Cmd"]]
        with self._log.open("wb") as log:
            inside, environment = self._inside(command), self._buildah.environment
            worker = subprocess.Popen(inside, env=environment, stdout=log, stderr=log)
        try:
            yield worker
        finally:
            if worker.poll() is None:
                processes.end(lambda: processes.with_descendants([worker.pid], processes.table()))
                worker.wait()

    def _stops(self, worker: subprocess.Popen[bytes]) -> None:
        """Send the image's stop signal to the worker itself, as an engine would."""
        table = processes.table()
        *_, leaf = processes.with_descendants([worker.pid], table)
        _expect(table[leaf].has("run"), f"found {table[leaf].command!r} in place of the worker")
        os.kill(leaf, signal.Signals[self._image["StopSignal"]])
        try:
            code = worker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ServerError("The worker did not stop.", log=self._log, code=1) from None
        if code:
            raise ServerError(f"The worker stopped with exit code {code}.", log=self._log, code=1)

    def _inside(self, command: Sequence[str]) -> list[str]:
        variables = (f"--env={name}={value}" for name, value in self._variables.items())
        return ["buildah", "run", *variables, self._container, "--", *command]


def _expect(holds: bool, words: str) -> None:
    if not holds:
        raise ServerError(f"The image is not as it must be: {words}.", code=1)
