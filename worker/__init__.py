"""JSON commands in from RabbitMQ, one PostgreSQL transaction each, result events out."""

__version__ = "0.1.0"
