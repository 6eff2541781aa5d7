"""Connecting with plain pika, and what it raises where the broker, or the way to it, is gone."""

from __future__ import annotations

from collections.abc import Sequence

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPConnectionError, AMQPError

# A handshake that takes longer than `stack_timeout` is no `AMQPError` to pika 1.4.
BROKER_AWAY: tuple[type[Exception], ...] = (AMQPError, AMQPConnectorException, OSError)

RESET_AT_ONCE = ValueError
"""What pika 1.4 raises where a socket is reset just as it was connected: too wide to be caught
once a connection is there."""


def parameters_of(broker_url: str, **values: float) -> list[pika.URLParameters]:
    """Of each node in the address, which may name several with commas between."""
    found = [pika.URLParameters(url) for url in broker_url.split(",")]
    for parameters in found:
        for name, value in values.items():
            setattr(parameters, name, value)
    return found


def connect(parameters: Sequence[pika.connection.Parameters]) -> pika.BlockingConnection:
    """A connection to the first node that answers. Raises one of `BROKER_AWAY` where none does."""
    try:
        return pika.BlockingConnection(parameters)
    except RESET_AT_ONCE as error:
        raise AMQPConnectionError(str(error)) from error
