"""What pika raises where a broker is gone is known to those who connect again."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pika
import pytest
from pika.adapters.utils import io_services_utils

from tests.servers.processes import until
from worker.testing.away import BROKER_AWAY, connect
from worker.testing.publisher import Publisher


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
            connect(pika.ConnectionParameters("127.0.0.1", port))
    assert ResetOnce.left == 0


@pytest.mark.usefixtures("reset_once")
def test_a_publisher_outlives_a_socket_that_is_reset_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        url = f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}/"
        with Publisher(url, "worker", tmp_path / "book") as publisher:
            for _ in range(2):
                listener.accept()[0].close()
            # It rests before it connects again: pika takes it ill to be stopped in a handshake.
            assert until(lambda: publisher._connection is None, within=10)
    assert ResetOnce.left == 0
