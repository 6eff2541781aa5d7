"""What plain pika raises where the broker, or the way to it, is gone."""

from __future__ import annotations

from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

# A handshake that takes longer than `stack_timeout` is no `AMQPError` to pika 1.4.
BROKER_AWAY: tuple[type[Exception], ...] = (AMQPError, AMQPConnectorException, OSError)
