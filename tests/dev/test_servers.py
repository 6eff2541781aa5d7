"""Real servers: started, crashed, frozen, stopped."""

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.servers import PrivatePostgres, PrivateRabbitMQ, ServerError, postgres, processes, rabbitmq
from dev.servers.commands import Finished
from dev.servers.services import Services

pytestmark = [pytest.mark.long, pytest.mark.faults]

REPOSITORY = Path(__file__).resolve().parents[2]
needs_postgres = pytest.mark.skipif(not postgres.find_binaries(), reason="no PostgreSQL here")
needs_rabbitmq = pytest.mark.skipif(not rabbitmq.find_binaries(), reason="no RabbitMQ here")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Unlike tmp_path open to other users, so that nothing is left outside."""
    path = Path(tempfile.mkdtemp(prefix="worker-test-servers-"))
    path.chmod(0o755)
    yield path
    # A guard on its way out may write its last line meanwhile.
    assert processes.until(lambda: _removed(path), within=10)


def _removed(path: Path) -> bool:
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def sql(server: PrivatePostgres, statement: str) -> list[str]:
    """The first column of what the statement gives, by the protocol's bare bones."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!I", len(body) + 4) + body

    rows = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        login = struct.pack("!I", 196608) + b"user\0worker\0database\0worker\0\0"
        connection.sendall(message(b"", login) + message(b"Q", statement.encode() + b"\0"))
        ready = 0
        with connection.makefile("rb") as replies:
            while ready < 2:
                kind, length = struct.unpack("!cI", replies.read(5))
                body = replies.read(length - 4)
                assert kind != b"E", body
                ready += kind == b"Z"
                if kind == b"D":
                    size = struct.unpack("!I", body[2:6])[0]
                    rows.append(body[6 : 6 + size].decode())
    return rows


@needs_postgres
def test_postgres_keeps_port_and_data_over_crash_and_restart(directory: Path) -> None:
    server = PrivatePostgres(directory / "pg", settings={"work_mem": "1234kB"})
    with server:
        sql(server, "CREATE TABLE kept AS SELECT 'still here' AS words")
        assert sql(server, "SHOW work_mem") == ["1234kB"]
        assert sql(server, "SHOW fsync") == ["on"]
        url, pid = server.url, server.pid
        server.start()
        assert server.pid == pid, "a server that runs is left alone"

        server.kill()
        with pytest.raises(ServerError, match="not running"):
            _ = server.pid
        server.start()
        assert (server.url, sql(server, "TABLE kept")) == (url, ["still here"])

        server.freeze()
        assert (server.running, server.answers()) == (True, False)
        server.thaw()
        assert processes.until(server.answers, within=10)

        server.restart()
        assert (server.url, sql(server, "TABLE kept")) == (url, ["still here"])
        assert PrivatePostgres.attach(server.directory).pid == server.pid
    assert not server.running
    server.remove()
    assert not server.directory.exists()


@needs_postgres
def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    server = PrivatePostgres(directory / "pg", settings={"work_mem": "much"})
    with pytest.raises(ServerError, match='invalid value for parameter "work_mem"'):
        server.start()
    assert not server.running


@needs_postgres
def test_a_server_ends_with_the_process_that_started_it(directory: Path) -> None:
    script = (
        "import os, pathlib, sys; from dev.servers import PrivatePostgres;"
        "server = PrivatePostgres(pathlib.Path(sys.argv[1])); server.start();"
        "print(server.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", script, str(directory / "pg")]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert processes.until(lambda: int(done.stdout) not in processes.table(), within=10)
    # The guard itself may still be on its way out of the directory.
    family = PrivatePostgres.attach(directory / "pg")._family
    assert processes.until(lambda: not family(), within=10)


@needs_rabbitmq
def test_rabbitmq_keeps_port_and_data_over_crash_and_restart(directory: Path) -> None:
    server = PrivateRabbitMQ(directory / "mq", config="channel_max = 77\n")
    declare = """rabbit_amqqueue:declare(rabbit_misc:r(<<"/">>, queue, <<"kept">>), true, false,
        [], none, <<"test">>)."""
    with server:
        server.ctl("eval", declare)
        assert server.ctl("eval", "application:get_env(rabbit, channel_max).").strip() == "{ok,77}"
        url, pid = server.url, server.pid

        # A clean stop first: RabbitMQ writes what it was just told a moment later.
        server.restart()
        server.kill()
        assert not server._family()
        server.restart()
        assert server.url == url
        assert server.pid != pid
        assert "kept" in server.ctl("list_queues", "name")
        with pytest.raises(ServerError, match="nonsense"):
            server.ctl("nonsense")

        server.freeze()
        assert (server.running, server.answers()) == (True, False)
        server.thaw()
        assert processes.until(server.answers, within=10)
    assert not server.running
    assert not server._family(), "epmd and Erlang's helpers go, too"


@needs_postgres
@needs_rabbitmq
def test_a_run_stops_what_it_started_unless_it_is_wanted_for_longer(directory: Path) -> None:
    def services() -> Services:
        return Services(directory, {}, lambda argv, timeout: Finished(1, "no Docker here"))

    first, second = services(), services()
    found = first.up(keep=False, use=True)
    assert second.up(keep=False, use=True).urls == found.urls
    assert first.done() == [], "the second still uses them"
    assert (directory / ".services" / "env").read_text().count("export WORKER_") == 2
    assert services().status()[1]
    # The URLs that a terminal has read from our file are no servers that we are told of.
    again = Services(directory, found.urls.variables(), lambda *_: Finished(1, "")).up(keep=True)
    assert again.urls == found.urls
    assert again.source is not None
    assert second.done() == [], "they are wanted for longer"
    assert len(services().clean()) == 2
    assert os.listdir(directory) == []


def test_a_fixed_port_that_is_taken_is_an_error(directory: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = PrivatePostgres(directory / "pg", port=other.getsockname()[1])
        if postgres.find_binaries():
            with pytest.raises(ServerError, match="is taken"):
                server.start()
    assert os.listdir(directory) in ([], ["pg"])
