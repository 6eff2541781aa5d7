"""The child's end of the line: reports to the parent, and heeds the signals that it passes on.

Signals do not come as signals: a terminal sends them to the children as well, and so does systemd,
and then one Ctrl-C would count twice. On the line each is one byte. The line's end is the parent's.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress
from functools import partial

import structlog

from worker.core.errors import WorkerError
from worker.service.service import Service
from worker.service.supervisor.plan import SIGNALS
from worker.settings.settings import Settings

log = structlog.get_logger(__name__)

REPORT_SECONDS = 0.5


def open_line(number: int) -> socket.socket:
    """The line that the parent has handed down as this file descriptor."""
    os.set_inheritable(number, False)  # a handler's own children have no part in it
    return socket.socket(fileno=number)


def tell_error(line: socket.socket, error: WorkerError) -> bool:
    """Leave it to the parent to say what is wrong, once for all; false if there is no parent."""
    try:
        line.setblocking(True)
        line.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
    except OSError:
        return False
    return True


async def run_on_line(settings: Settings, line: socket.socket, *, processes: int) -> None:
    """Run a service until the parent says to stop, or is gone; twice said is at once.

    `processes` is as in `Service`.
    """
    service = Service(settings, processes=processes)
    running = asyncio.current_task()
    assert running is not None
    _heed_signals(service)
    # A second descriptor of the same line: this one is closed with its streams.
    reader, writer = await asyncio.open_connection(sock=line.dup())
    service.beside("parent", partial(_listen, reader, service, running))
    service.beside("reports", partial(_report, writer, service))
    try:
        await service.run()
    finally:
        writer.close()


def _heed_signals(service: Service) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, service.stop)
    # They have been blocked since before this process began, but for SIGTERM (`__main__`).
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


async def _listen(
    reader: asyncio.StreamReader, service: Service, running: asyncio.Task[None]
) -> None:
    said = 0
    with suppress(ConnectionError):
        while await reader.read(1):
            said += 1
            if said == 2:
                log.warning("stopping at once")
                running.cancel()
            service.stop()
    if not said:
        log.warning("the parent process is gone")
        service.stop()
    await asyncio.Event().wait()  # it ends with the service


async def _report(writer: asyncio.StreamWriter, service: Service) -> None:
    with suppress(ConnectionError):
        while True:
            report = service.health.as_json() | {"url": service.health.url}
            writer.write(json.dumps(report).encode() + b"\n")
            await writer.drain()
            await asyncio.sleep(REPORT_SECONDS)
    await asyncio.Event().wait()  # nobody is there to be told; the other end of the line says so
