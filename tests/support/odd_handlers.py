"""Users with a verb for each odd thing that a handler can do: `user.do`, `{"what": "…"}`.

Each is a function here; it finds its user, writes, and then misbehaves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import field_validator
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from worker.core.errors import Conflict
from worker.core.messages import Command, Event
from worker.core.payloads import Payload
from worker.core.registry import Verb
from worker.entities.order import ORDER, Order
from worker.entities.user import USER, User
from worker.processing.crud import fetch

ATTEMPTS: Counter[str] = Counter()
"""Attempts at each command, by its id."""

LET_GO = asyncio.Event()
"""Ends the one that never lets go, so that the test's own loop can end."""

Misbehave = Callable[[AsyncSession, User], Awaitable[Any]]


class Own(BaseException):
    """One that nobody knows."""


class Unspeakable(Exception):
    """One whose words cannot be had."""

    def __str__(self) -> str:
        raise self


class Mute(Conflict):
    """A refusal without any of what makes one."""

    def __init__(self) -> None:
        Exception.__init__(self)


async def _raise(error: Callable[[], BaseException], *_: Any) -> None:
    raise error()


async def _await_cancelled(*_: Any) -> None:
    other = asyncio.ensure_future(asyncio.sleep(60))
    other.cancel()
    await other


async def _cancel_oneself(*_: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def _hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def _never_let_go(*_: Any) -> None:
    while not LET_GO.is_set():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


async def _hang_in_sql(session: AsyncSession, _: User) -> None:
    await session.execute(text("SELECT pg_sleep(60)"))


async def _time_out(*_: Any) -> None:
    async with asyncio.timeout(0.01):
        await asyncio.sleep(60)


async def _call(name: str, session: AsyncSession, _: User) -> None:
    await getattr(session, name)()


async def _swallow(name: str, session: AsyncSession, user: User) -> Event:
    with suppress(Exception):
        await getattr(session, name)()
    return Event("user.odd", user)


async def _commit_connection(session: AsyncSession, _: User) -> None:
    await (await session.connection()).commit()


async def _commit_transaction(session: AsyncSession, _: User) -> None:
    def commit(sync: Any) -> None:
        sync.get_transaction().commit()

    await session.run_sync(commit)


async def _roll_back_in_a_task(session: AsyncSession, _: User) -> None:
    await asyncio.create_task(session.rollback())


async def _begin(session: AsyncSession, _: User) -> None:
    async with session.begin():
        pass


async def _use_as_context(session: AsyncSession, _: User) -> None:
    async with session:
        pass


async def _run(sql: str, session: AsyncSession, _: User) -> None:
    await session.execute(text(sql))


async def _say(code: str, session: AsyncSession, _: User) -> None:
    await session.execute(
        text(f"DO $$ BEGIN RAISE EXCEPTION 'told' USING ERRCODE = '{code}'; END $$")
    )


async def _say_otherwise(code: str, session: AsyncSession, user: User) -> None:
    try:
        await _say(code, session, user)
    except DBAPIError:
        raise ValueError("in other words") from None


async def _wrong_parameter(session: AsyncSession, _: User) -> None:
    await session.execute(text("SELECT 1 FROM users WHERE id = :id"), {"id": "no number"})


async def _use_an_unreachable_database(*_: Any) -> None:
    engine = create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    async with engine.connect():
        pass


async def _take_a_name(session: AsyncSession, user: User) -> Event:
    user.username = "taken"
    return Event("user.odd", user)


async def _return(value: Callable[[User], Any], _: AsyncSession, user: User) -> Any:
    return value(user)


async def _return_order(session: AsyncSession, user: User) -> Event:
    order = Order(user_id=user.id)
    session.add(order)
    await session.flush()
    return Event("user.odd", order)


async def _set_nan(_: AsyncSession, user: User) -> Event:
    user.rating = float("nan")
    return Event("user.odd", user)


async def _lie(session: AsyncSession, user: User) -> Event:
    await session.execute(text("UPDATE users SET rating = 99 WHERE id = :id"), {"id": user.id})
    user.__dict__["rating"] = float("nan")  # past the ORM
    return Event("user.odd", user)


async def _end_savepoint(how: str, session: AsyncSession, user: User) -> Event:
    savepoint = session.get_nested_transaction()
    assert savepoint is not None
    await getattr(savepoint, how)()
    return Event("user.odd", user)


async def _leave_savepoint_open(session: AsyncSession, user: User) -> Event:
    await session.begin_nested()
    return Event("user.odd", user)


async def _undo_a_part(session: AsyncSession, user: User) -> Event:
    with suppress(DBAPIError):
        async with session.begin_nested():
            await session.execute(text("UPDATE users SET rating = 1 / 0"))
    return Event("user.odd", user)


async def _swallow_error(session: AsyncSession, user: User) -> Event:
    with suppress(DBAPIError):
        await session.execute(text("SELECT 1 / 0"))
    return Event("user.odd", user)


async def _refuse_badly(*_: Any) -> None:
    raise Mute


async def _spawn(session: AsyncSession, user: User) -> Event:
    async def linger() -> None:
        await asyncio.sleep(60)

    asyncio.get_running_loop().create_task(linger())
    return Event("user.odd", user)


async def _spawn_who_writes(session: AsyncSession, user: User) -> Event:
    async def write_later() -> None:
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        await session.execute(text("UPDATE users SET rating = 66"))

    asyncio.get_running_loop().create_task(write_later())
    return Event("user.odd", user)


async def _spawn_who_exits(session: AsyncSession, user: User) -> Event:
    async def leave() -> None:
        raise SystemExit(3)

    await asyncio.gather(asyncio.get_running_loop().create_task(leave()))
    return Event("user.odd", user)


def _not_a_coroutine(*_: Any) -> Any:
    return 5


FAILS_AGAIN_AND_AGAIN: dict[str, Misbehave] = {
    **{
        f"raises {error.__name__}": partial(_raise, error)
        for error in (
            asyncio.CancelledError,
            StopIteration,
            StopAsyncIteration,
            GeneratorExit,
            SystemExit,
            KeyboardInterrupt,
            ConnectionRefusedError,
            ConnectionResetError,
            TimeoutError,
            OSError,
            RecursionError,
            MemoryError,
            Own,
            Unspeakable,
        )
    },
    "raises a group": partial(_raise, lambda: BaseExceptionGroup("two", [SystemExit(), Own()])),
    "awaits what was cancelled": _await_cancelled,
    "cancels itself": _cancel_oneself,
    "times out": _time_out,
    "says 53400": partial(_say, "53400"),
    "says 53100": partial(_say, "53100"),
    "says 53300": partial(_say, "53300"),
    "says 08006": partial(_say, "08006"),
    "says 57P03": partial(_say, "57P03"),
    "says 42P01": partial(_say, "42P01"),
    "says XX000 in other words": partial(_say_otherwise, "XX000"),
    "reaches no database of its own": _use_an_unreachable_database,
    "a child exits": _spawn_who_exits,
    "rolls back its savepoint": partial(_end_savepoint, "rollback"),
    "releases its savepoint": partial(_end_savepoint, "commit"),
    "swallows an error of SQL": _swallow_error,
    "is no coroutine": _not_a_coroutine,
}
"""Fails at each attempt: as many as the settings say, then `failed`."""

LOSES_ITS_CONNECTION: dict[str, Misbehave] = {
    "says 25006": partial(_say, "25006"),  # as a primary does that is one no longer
    "ends its session": partial(_run, "SELECT pg_terminate_backend(pg_backend_pid())"),
}
"""Is tried more often: connections break under innocent ones, too."""

HANGS: dict[str, Misbehave] = {
    "never returns": _hang,
    "never lets go": _never_let_go,
    "hangs in SQL": _hang_in_sql,
}

FAILS_AT_ONCE: dict[str, Misbehave] = {
    **{f"calls {name}": partial(_call, name) for name in ("commit", "rollback", "close", "reset")},
    **{f"swallows {name}": partial(_swallow, name) for name in ("commit", "rollback", "close")},
    "commits the connection": _commit_connection,
    "commits the transaction": _commit_transaction,
    "begins": _begin,
    "rolls back in a task": _roll_back_in_a_task,
    "uses the session as context": _use_as_context,
    **{
        f"runs {sql!r}": partial(_run, sql)
        for sql in (
            "COMMIT",
            "/* now */ rollback",
            "-- so\nEND",
            "ABORT",
            "SET jit = on",
            "RESET ALL",
        )
    },
    "passes a wrong parameter": _wrong_parameter,
    "returns None": partial(_return, lambda _: None),
    "returns a row": partial(_return, lambda user: user),
    "returns an error": partial(_return, lambda _: Conflict("no")),
    "returns an order": _return_order,
    "returns no row": partial(_return, lambda _: Event("user.odd", None)),
    "returns a row of nowhere": partial(
        _return, lambda _: Event("user.odd", User(id=1, username="x", email="x@x.de"))
    ),
    "returns a long type": partial(_return, lambda user: Event("x" * 300, user)),
    "returns no type": partial(_return, lambda user: Event(None, user)),  # type: ignore[arg-type]
    "returns a type with spaces": partial(_return, lambda user: Event("user odd", user)),
    "runs ROLLBACK TO": partial(_run, "ROLLBACK TO SAVEPOINT sa_savepoint_1"),
    "runs RELEASE": partial(_run, "release sa_savepoint_1"),
}
"""Fails at the first attempt for good: it would do the same again."""

REFUSES: dict[str, Misbehave] = {
    "takes a name": _take_a_name,
    "sets NaN": _set_nan,
    "refuses badly": _refuse_badly,
}

GOES_WELL: dict[str, Misbehave] = {
    "leaves a task": _spawn,
    "leaves a task that writes": _spawn_who_writes,
    "leaves a savepoint open": _leave_savepoint_open,
    "undoes a part": _undo_a_part,
    "sets a local": partial(_run, "SET LOCAL lock_timeout = 1"),
}

TELLS_THE_TRUTH: dict[str, Misbehave] = {"lies about its row": _lie}

ALL = (
    FAILS_AGAIN_AND_AGAIN
    | LOSES_ITS_CONNECTION
    | HANGS
    | FAILS_AT_ONCE
    | REFUSES
    | GOES_WELL
    | TELLS_THE_TRUTH
)


class What(Payload):
    what: str


async def do(session: AsyncSession, command: Command) -> Event:
    """Writes, and then does as it is told."""
    ATTEMPTS[command.envelope.id or ""] += 1
    user = await fetch(session, User, command)
    user.rating = 13
    await session.flush()
    event = await ALL[command.data.what](session, user)
    return event if event is not None or "returns" in command.data.what else Event("user.odd", user)


class Unchecked(Payload):
    """One whose own rules fail, by whatever it names."""

    text: str

    @field_validator("text")
    @classmethod
    def _fail(cls, value: str) -> str:
        raise {"KeyError": KeyError, "SystemExit": SystemExit, "Own": Own}[value]


ENTITIES = (
    replace(USER, verbs={**USER.verbs, "do": Verb(do, What), "check": Verb(do, Unchecked)}),
    ORDER,
)
