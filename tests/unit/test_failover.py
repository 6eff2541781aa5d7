"""Which of several hosts a connection is made to."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from worker.database.failover import follow
from worker.database.tls import CannotConnect

URL = "postgresql+asyncpg://ann:s3cret@/shop?host=a:5432&host=b:5433&host=c:5434"


class Servers:
    """Hosts of which each answers, or fails as the test says; notes who was asked for what."""

    def __init__(self, url: str = URL) -> None:
        self.faults: dict[str, BaseException] = {}
        self.asked: list[str] = []
        self.options: dict[str, Any] = {}
        engine = create_async_engine(url)
        dialect: Any = engine.dialect
        dialect.connect = self.answer
        self.dialect = dialect
        follow(engine)

    def connect(self) -> Any:
        """What the pool does, with the options that are the same for every host."""
        self.asked.clear()
        _, options = self.dialect.create_connect_args(create_async_engine(URL).url)
        return self.dialect.connect(**options)

    def answer(self, **options: Any) -> str:
        host = options["host"]
        self.asked.append(host)
        self.options = options
        if host in self.faults:
            raise self.faults[host]
        return f"connection to {host}"

    def translated(self, error: Exception) -> Exception:
        """The driver's error as SQLAlchemy raises it."""
        fault: Exception = self.dialect.dbapi.Error(str(error), error)
        fault.__cause__ = error
        return fault


@pytest.fixture
def servers() -> Servers:
    return Servers()


def test_each_host_is_asked_by_itself_for_a_server_that_takes_writes(servers: Servers) -> None:
    servers.faults = {"a": ConnectionRefusedError("no"), "b": TimeoutError()}

    assert servers.connect() == "connection to c"
    assert servers.asked == ["a", "b", "c"]
    assert servers.options["port"] == 5434
    assert servers.options["target_session_attrs"] == "read-write"
    assert servers.options["database"] == "shop"


def test_the_one_that_was_found_is_asked_first_from_then_on(servers: Servers) -> None:
    servers.faults = {"a": ConnectionRefusedError("no")}
    servers.connect()
    servers.faults = {}  # the old primary is back, perhaps by mistake

    assert servers.connect() == "connection to b"
    assert servers.asked == ["b"]


def test_whoever_gives_up_while_a_host_is_silent_leaves_it_last(servers: Servers) -> None:
    servers.faults = {"a": KeyboardInterrupt()}  # as a cancellation, no error of the server's
    with pytest.raises(KeyboardInterrupt):
        servers.connect()

    assert servers.connect() == "connection to b"
    assert servers.asked == ["b"]


def test_where_none_takes_writes_each_is_told(servers: Servers) -> None:
    standby = asyncpg.exceptions.TargetServerAttributeNotMatched("None of the hosts match …")
    starting = asyncpg.exceptions.CannotConnectNowError("the database system is starting up")
    servers.faults = {
        "a": ConnectionRefusedError("refused"),
        "b": servers.translated(standby),
        "c": servers.translated(starting),
    }
    with pytest.raises(CannotConnect) as caught:
        servers.connect()

    assert str(caught.value) == (
        "none of 3 hosts takes writes (a:5432: refused; b:5433: it is read-only, or a standby; "
        "c:5434: the database system is starting up)"
    )


@pytest.mark.parametrize(
    "refusal",
    [
        asyncpg.exceptions.InvalidPasswordError("no"),
        asyncpg.exceptions.InvalidCatalogNameError("no"),
    ],
    ids=lambda refusal: refusal.sqlstate,
)
def test_an_account_that_one_host_refuses_is_refused_by_all(
    servers: Servers, refusal: Exception
) -> None:
    wrong = servers.translated(refusal)
    servers.faults = {"a": TimeoutError(), "b": wrong, "c": TimeoutError()}
    with pytest.raises(type(wrong)) as caught:
        servers.connect()

    assert caught.value is wrong


def test_a_single_host_is_left_to_the_driver() -> None:
    servers = Servers("postgresql+asyncpg://ann@a/shop")

    assert servers.dialect.connect == servers.answer
