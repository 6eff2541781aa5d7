"""What pika raises where a broker is gone is known to those who connect again."""

from __future__ import annotations

import socket

import pika
import pytest

from worker.testing.away import BROKER_AWAY


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
