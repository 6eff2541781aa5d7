"""A worker among breakable links, commands for it, and the verdict on what it made of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

from worker.testing.broker_errors import connect, parameters_of
from worker.testing.journal import FaultPeriod, Journal, JournalWriter
from worker.testing.proxy import Proxy
from worker.testing.publisher import CommandPublisher
from worker.testing.snapshot import command_queues, note_seeds, take_stock
from worker.testing.verdict import Verdict, judge

BROKER, DATABASE = "WORKER_BROKER__URL", "WORKER_DATABASE__URL"


class Chaos:
    """`worker run` as a process with these settings, in a namespace of its own, to be broken.

    The worker reaches its servers through `broker` and `database`, two fault proxies; publisher and
    observer go there directly. The database must be migrated; rows that are in it are left alone.
    `tables` names the table of each entity that the verdict is to look at.
    """

    def __init__(
        self, environment: Mapping[str, str], directory: Path, *, tables: Mapping[str, str]
    ) -> None:
        self._broker_url, self._database_url = environment[BROKER], environment[DATABASE]
        self._environment = {
            "WORKER_BROKER__HEARTBEAT_SECONDS": "2",
            **os.environ,
            **environment,
            "WORKER_LOG_FORMAT": "json",
        }
        self._tables = tables
        self._partitions = int(self._environment.get("WORKER_PARTITIONS", 1))
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.namespace = f"chaos-{uuid.uuid4().hex[:12]}"
        self.book = directory / "book"
        self.log = directory / "worker.log"
        """What the worker writes; the first thing to read when the verdict is bad."""
        self.broker = Proxy.before(self._broker_url)
        self.database = Proxy.before(self._database_url)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for proxy in (self.broker, self.database):
                stack.enter_context(proxy)
            self._pen = stack.enter_context(JournalWriter(self.book, "chaos"))
            note_seeds(self.book, database_url=self._database_url, tables=self._tables)
            stack.callback(self._delete_queues)
            stack.callback(self._end, "_observer")
            self._observer = self._start_observer()
            stack.callback(self._end, "_process")
            self.start()
            publisher = CommandPublisher(self._broker_url, self.namespace, self.book)
            self._publisher = stack.enter_context(publisher)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # Commands

    def publish(self, type_: str, **members: Any) -> str:
        """Send a command, such as `publish("user.create", data={…}, key="ann")`; return its id.

        It goes out in the background, again and again until the broker has confirmed it.
        """
        return self._publisher.publish({"type": type_, **members})

    def answered(self, count: int, *, within_seconds: float = 30) -> None:
        """Return once so many commands have an answer; raise `TimeoutError` if that takes long."""
        self._until(
            lambda: len({event.command_id for event in Journal.read(self.book).events}) >= count,
            within_seconds,
            f"{count} answers",
        )

    # The worker

    def start(self) -> None:
        """Start the worker, and return when it is ready."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = self._environment | {
            BROKER: self.broker.through(self._broker_url),
            DATABASE: self.database.through(self._database_url),
            "WORKER_NAMESPACE": self.namespace,
            "WORKER_HEALTH__PORT": str(port),
        }
        with self.log.open("ab") as log:
            command = (sys.executable, "-m", "worker", "run")
            self._process = subprocess.Popen(command, env=environment, stderr=log)  # noqa: S603
        self._until(lambda: self._is_ready(port), 30, "a worker that is ready")

    def kill(self) -> None:
        """End the worker with kill -9, wherever it is, and start it again."""
        with self.fault("kill -9"):
            self._running.kill()
            self._running.wait()
        self.start()

    def freeze(self) -> None:
        """Stop the worker where it stands (SIGSTOP)."""
        self._running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._running.send_signal(signal.SIGCONT)

    def stop(self, *, within_seconds: float = 30) -> int:
        """End the worker in order (SIGTERM); return its exit code."""
        self._running.terminate()
        return self._running.wait(within_seconds)

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Write into the book that something is broken meanwhile, to learn how soon it recovers."""
        began = time.monotonic()
        yield
        self._pen.write(FaultPeriod(name, began, time.monotonic()))

    # The end

    def verdict(self, *, within_seconds: float = 60, ordered: bool = True) -> Verdict:
        """Mend all links, give the worker this long to answer everything, stop it, and judge.

        The worker may have been killed or stopped before; then it is started once more.
        """
        for proxy in (self.broker, self.database):
            proxy.heal()
        if self._running.poll() is not None:
            self.start()
        self.thaw()
        self._publisher.wait(within_seconds)
        deadline = time.monotonic() + within_seconds
        while not self._all_answered() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.stop()
        self._observer.terminate()
        self._observer.wait(within_seconds)
        take_stock(
            self.book,
            broker_url=self._broker_url,
            database_url=self._database_url,
            namespace=self.namespace,
            tables=self._tables,
            partitions=self._partitions,
        )
        return judge(Journal.read(self.book), ordered=ordered)

    # The inside

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "use it as a context manager"
        return self._process

    def _all_answered(self) -> bool:
        book = Journal.read(self.book)
        answered = {event.command_id for event in book.events}
        return all(each.id in answered for each in book.confirms)

    def _is_ready(self, port: int) -> bool:
        if self._running.poll() is not None:
            raise RuntimeError(f"the worker ended with {self._running.returncode}; see {self.log}")
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):  # not there yet
            return False
        finally:
            connection.close()

    def _start_observer(self) -> subprocess.Popen[bytes]:
        options = ("--broker", self._broker_url, "--namespace", self.namespace)
        observer = subprocess.Popen(  # noqa: S603
            (sys.executable, "-m", "worker.testing.observer", *options, "--book", str(self.book)),
            stdout=subprocess.PIPE,
        )
        assert observer.stdout is not None
        with observer.stdout as words:
            if not words.readline():
                raise RuntimeError("the observer ended before it was ready")
        return observer

    def _until(self, look: Callable[[], bool], within_seconds: float, what: str) -> None:
        deadline = time.monotonic() + within_seconds
        while not look():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {within_seconds:g} s: {what}; see {self.log}")
            time.sleep(0.1)

    def _end(self, name: str) -> None:
        process: subprocess.Popen[bytes] | None = getattr(self, name, None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _delete_queues(self) -> None:
        connection = connect(parameters_of(self._broker_url))
        channel = connection.channel()
        for queue in command_queues(self.namespace, self._partitions):
            channel.queue_delete(queue)
        for queue in ("events", "dead-letters", "observer"):
            channel.queue_delete(f"{self.namespace}.{queue}")
        for exchange in ("commands", "partitions", "events"):
            channel.exchange_delete(f"{self.namespace}.{exchange}")
        connection.close()
