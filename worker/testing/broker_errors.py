"""Connecting with plain pika, and what it raises where the broker, or the way to it, is gone."""

from __future__ import annotations

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPConnectionError, AMQPError

# A handshake that takes longer than `stack_timeout` is no `AMQPError` to pika 1.4.
BROKER_AWAY: tuple[type[Exception], ...] = (AMQPError, AMQPConnectorException, OSError)

RESET_AT_ONCE = ValueError
"""What pika 1.4 raises where a socket is reset just as it was connected: too wide to be caught
once a connection is there."""


def connect(parameters: pika.connection.Parameters) -> pika.BlockingConnection:
    """A connection. Raises one of `BROKER_AWAY` where none is to be had."""
    try:
        return pika.BlockingConnection(parameters)
    except RESET_AT_ONCE as error:
        raise AMQPConnectionError(str(error)) from error
