"""RabbitMQ and PostgreSQL for the demo and the tests, from wherever they can be had.

`python -m dev.servers --help` is the command; `PrivatePostgres` and `PrivateRabbitMQ` are for
tests that break a server of their own.
"""

from dev.servers.errors import ServerError
from dev.servers.postgres import PrivatePostgres
from dev.servers.rabbitmq import PrivateRabbitMQ

__all__ = ["PrivatePostgres", "PrivateRabbitMQ", "ServerError"]
