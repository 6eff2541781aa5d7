"""The fault proxy: each fault, on plain sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from tests.support.harness import eventually
from worker.testing.proxy import COMMIT, Proxy

ALMOST_NOTHING_SECONDS = 0.15


class Echo(BaseRequestHandler):
    """Sends back what it gets, says goodbye, and tells the test how each connection ended."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, EchoServer)
        try:
            while piece := self.request.recv(65_536):
                server.heard += piece
                self.request.sendall(piece)
            self.request.sendall(b"bye")
            server.ends.append("closed")
        except OSError:
            server.ends.append("reset")


class EchoServer(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.heard = bytearray()
        self.ends: list[str] = []

    @property
    def url(self) -> str:
        return f"amqp://guest:g%40st@127.0.0.1:{self.server_address[1]}/v?heartbeat=2"


@pytest.fixture
def server() -> Iterator[EchoServer]:
    with EchoServer() as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: EchoServer) -> Iterator[Proxy]:
    with Proxy.before(server.url) as proxy:
        yield proxy


@contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=10)) as link:
        yield link


def ask(link: socket.socket, words: bytes = b"hello") -> bytes:
    """Send, and read until as much has come back."""
    link.sendall(words)
    heard = b""
    while len(heard) < len(words):
        piece = link.recv(65_536)
        assert piece, "the link has ended"
        heard += piece
    return heard


def is_silent(link: socket.socket) -> bool:
    link.settimeout(ALMOST_NOTHING_SECONDS)
    try:
        link.recv(1)
    except TimeoutError:
        return True
    finally:
        link.settimeout(10)
    return False


def is_reset(link: socket.socket) -> bool:
    try:
        link.recv(1)
    except ConnectionResetError:
        return True
    return False


def refuses(proxy: Proxy) -> bool:
    try:
        with client(proxy) as link:
            return is_reset(link)
    except ConnectionResetError:  # already while it connected
        return True


def test_a_url_goes_through_it_with_all_else_as_it_was(proxy: Proxy, server: EchoServer) -> None:
    through = proxy.through(server.url)
    assert through == f"amqp://guest:g%40st@127.0.0.1:{proxy.port}/v?heartbeat=2"


def test_in_fair_weather_everything_passes_both_ways(proxy: Proxy, server: EchoServer) -> None:
    much = bytes(range(256)) * 4_000
    with client(proxy) as one, client(proxy) as other:
        writing = Thread(target=one.sendall, args=(much,))
        writing.start()
        heard = b""
        while len(heard) < len(much):
            heard += one.recv(65_536)
        writing.join()
        assert heard == much
        assert ask(other) == b"hello"
        assert proxy.links == 2
        one.shutdown(socket.SHUT_WR)
        assert one.recv(10) == b"bye", "an end of one direction leaves the other as it was"
        assert one.recv(10) == b""
    assert "closed" in server.ends


async def test_it_serves_asyncio_as_well(server: EchoServer) -> None:
    async with Proxy.before(server.url) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


def test_latency_delays_and_does_not_throttle(proxy: Proxy) -> None:
    with client(proxy) as link:
        proxy.slow(latency_seconds=0.1, jitter_seconds=0.02)
        begun = time.monotonic()
        assert ask(link, b"1") == b"1"
        assert time.monotonic() - begun >= 0.2
        begun = time.monotonic()
        for _ in range(50):
            link.sendall(b"12")
            time.sleep(0.001)
        assert ask(link, b"")[:0] == b""
        heard = b""
        while len(heard) < 100:
            heard += link.recv(65_536)
        assert heard == b"12" * 50, "jitter keeps the order"
        assert time.monotonic() - begun < 50 * 0.2
        proxy.heal()
        assert ask(link) == b"hello"


def test_a_bound_throughput_takes_its_time(proxy: Proxy) -> None:
    with client(proxy) as link:
        proxy.slow(bytes_per_second=10_000, way="to_client")
        begun = time.monotonic()
        assert len(ask(link, b"x" * 3_000)) == 3_000
        assert time.monotonic() - begun >= 0.3


def test_a_frozen_link_holds_everything_back_until_it_is_healed(
    proxy: Proxy, server: EchoServer
) -> None:
    with client(proxy) as link, client(proxy) as leaving:
        assert ask(link) == ask(leaving) == b"hello"
        proxy.freeze()
        link.sendall(b"again")
        leaving.close()
        assert is_silent(link)
        with client(proxy) as late:  # taken, but not served
            late.sendall(b"late")
            assert is_silent(late)
            assert server.ends == []
            proxy.heal()
            assert late.recv(10) == b"late"
        assert link.recv(10) == b"again"


def test_one_way_may_be_frozen_alone(proxy: Proxy, server: EchoServer) -> None:
    with client(proxy) as link:
        assert ask(link) == b"hello"
        proxy.freeze(way="to_client")
        link.sendall(b"heard")
        assert is_silent(link)
        assert server.heard == b"helloheard"


@pytest.mark.parametrize(
    ("way", "heard"),
    [("both", b"hello"), ("to_server", b"hello"), ("to_client", b"hellogone")],
)
async def test_a_black_hole_takes_and_passes_nothing_on(
    proxy: Proxy, server: EchoServer, way: str, heard: bytes
) -> None:
    with client(proxy) as link, client(proxy) as idle:
        assert await asyncio.to_thread(ask, link) == b"hello"
        proxy.swallow(way=way)  # type: ignore[arg-type]
        link.sendall(b"gone")
        assert is_silent(link)
        assert server.heard == heard
        proxy.heal()
        assert is_reset(link), "no TCP stream has a hole"
        assert await asyncio.to_thread(ask, idle) == b"hello", "nothing of this one was lost"


async def test_a_reset_reaches_both_ends_and_spares_new_links(
    proxy: Proxy, server: EchoServer
) -> None:
    with client(proxy) as link:
        assert ask(link) == b"hello"
        proxy.reset()
        assert is_reset(link)
        await eventually(lambda: server.ends == ["reset"])
    with client(proxy) as link:
        assert ask(link) == b"hello"


async def test_a_reset_by_an_end_is_passed_on(proxy: Proxy, server: EchoServer) -> None:
    with client(proxy) as link:
        assert ask(link) == b"hello"
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await eventually(lambda: server.ends == ["reset"])
    await eventually(lambda: proxy.links == 0)


def test_who_is_refused_finds_out_at_once_and_the_others_go_on(proxy: Proxy) -> None:
    with client(proxy) as old:
        assert ask(old) == b"hello"
        proxy.refuse()
        assert refuses(proxy)
        assert ask(old) == b"hello"
        proxy.heal()
        with client(proxy) as new:
            assert ask(new) == b"hello"


def test_a_server_that_is_not_there_refuses(server: EchoServer) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with Proxy(*taken.getsockname()) as proxy:
            assert refuses(proxy)


async def test_half_closed_the_server_hears_an_end_and_may_still_answer(
    proxy: Proxy, server: EchoServer
) -> None:
    with client(proxy) as link:
        assert ask(link) == b"hello"
        proxy.half_close(way="to_server")
        assert link.recv(10) == b"bye"
        await eventually(lambda: server.ends == ["closed"])
    with client(proxy) as link:
        assert ask(link) == b"hello"
        proxy.half_close(way="to_client")
        assert link.recv(10) == b""
        link.sendall(b"still")
        await eventually(lambda: bytes(server.heard).endswith(b"still"))


@pytest.mark.parametrize("deliver", [True, False])
async def test_a_cut_falls_on_its_moment_whether_or_not_it_is_delivered(
    proxy: Proxy, server: EchoServer, deliver: bool
) -> None:
    cut = proxy.cut_when(COMMIT, deliver=deliver)
    with client(proxy) as link, client(proxy) as other:
        assert ask(link, b"INSERT") == ask(other, b"INSERT") == b"INSERT"
        assert not cut.wait(0)
        link.sendall(b"Q____COMMIT;")
        assert is_reset(link)
        assert cut.wait()
        assert cut.count == 1
        await eventually(lambda: server.ends)
        assert (COMMIT in server.heard) == deliver
        assert ask(other, COMMIT) == COMMIT, "it happens once, to one link"


async def test_a_cut_sees_its_bytes_in_two_pieces_too(proxy: Proxy, server: EchoServer) -> None:
    cut = proxy.cut_when(COMMIT, deliver=False, times=2)
    for _ in range(2):
        with client(proxy) as link:
            assert ask(link, b"COM") == b"COM"
            link.sendall(b"MIT;")
            assert is_reset(link)
    assert cut.count == 2
    with client(proxy) as link:
        assert ask(link, COMMIT) == COMMIT


def test_an_answer_may_be_the_moment_and_a_function_may_choose_it(proxy: Proxy) -> None:
    cut = proxy.cut_when(lambda piece: piece == b"yes", deliver=True, way="to_client")
    with client(proxy) as link:
        assert ask(link, b"no") == b"no"
        link.sendall(b"yes")
        assert link.recv(10) == b"yes"
        assert is_reset(link) or link.recv(1) == b""
    assert cut.count == 1


async def test_what_passes_can_be_recorded(proxy: Proxy) -> None:
    sent = proxy.record()
    with client(proxy) as link:
        assert ask(link) == b"hello"
    assert sent == b"hello"
