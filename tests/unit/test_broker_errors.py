"""What pika raises where a broker is gone is known to those who connect again."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pika
import pytest
from pika.adapters.utils import io_services_utils

from dev.servers.processes import until
from worker.testing.broker_errors import BROKER_AWAY, connect
from worker.testing.publisher import CommandPublisher


def test_a_listener_that_never_speaks_is_a_broker_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        parameters = pika.ConnectionParameters("127.0.0.1", silent.getsockname()[1])
        parameters.stack_timeout = 0.2
        with pytest.raises(BROKER_AWAY):
            pika.BlockingConnection(parameters)


def test_a_closed_port_is_a_broker_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(BROKER_AWAY):
        pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port))


class ResetOnce(io_services_utils._AsyncStreamConnector):
    """Finds the first socket that it is given reset."""

    left = 1

    def __init__(self, **options: Any) -> None:
        if ResetOnce.left:
            ResetOnce.left -= 1
            options["sock"].close()
        super().__init__(**options)


@pytest.fixture
def reset_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResetOnce, "left", 1)
    monkeypatch.setattr(io_services_utils, "_AsyncStreamConnector", ResetOnce)


@pytest.mark.usefixtures("reset_once")
def test_a_socket_that_is_reset_at_once_is_a_broker_that_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BROKER_AWAY):
            connect([pika.ConnectionParameters("127.0.0.1", port)])
    assert ResetOnce.left == 0


@pytest.mark.usefixtures("reset_once")
def test_a_publisher_outlives_a_socket_that_is_reset_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        url = f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}/"
        with CommandPublisher(url, "worker", tmp_path / "book") as publisher:
            for _ in range(2):
                listener.accept()[0].close()
            assert until(lambda: publisher._connection is None, within=10)
    assert ResetOnce.left == 0


def test_a_publisher_can_be_stopped_in_any_part_of_a_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to close while a handshake fails, pika raises an error of its own in that thread."""
    monkeypatch.setattr("worker.testing.publisher.RECONNECT_SECONDS", 0.001)
    moments = random.Random(1)
    with hanging_up() as port:
        for number in range(80):
            url = f"amqp://guest:guest@127.0.0.1:{port}/"
            publisher = CommandPublisher(url, "worker", tmp_path / f"{number}").start()
            time.sleep(moments.uniform(0, 0.02))  # the moment is what differs
            publisher.stop()


@contextmanager
def hanging_up() -> Iterator[int]:
    """The port of a listener that closes every connection as soon as it was made."""

    def hang_up() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=hang_up)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
