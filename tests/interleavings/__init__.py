"""The worker's own code through thousands of schedules, against stand-ins for broker and database.

schedule.py    a loop whose time is simulated, and in which bytes choose what happens next
broker.py      the broker, at the level of a channel's methods
database.py    the database: what is committed
session.py     a connection to it, at the level of statements; engine.py makes them
commands.py    commands whose handlers behave in known ways
process.py     `worker.service.service.Service`, built on these
machine.py     one schedule, from bytes to its verdict
verdict.py     what must hold after each

That the stand-ins behave as RabbitMQ and PostgreSQL do is tested by `test_broker_conforms.py`
and `test_database_conforms.py`, which hold both to the same assertions (`servers.py`, `stores.py`).
"""
