"""RabbitMQ and PostgreSQL for the demo and the tests, from wherever they can be had.

`python -m tests.servers --help` is the command; `PrivatePostgres` and `PrivateRabbitMQ` are for
tests that break a server of their own.
"""

from tests.servers.errors import ServerError
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbitMQ

__all__ = ["PrivatePostgres", "PrivateRabbitMQ", "ServerError"]
