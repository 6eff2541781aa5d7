"""AMQP 0-9-1 frames and properties, read and written where the library's way costs most."""
