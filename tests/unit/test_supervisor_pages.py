"""The health pages of several processes: the little of HTTP that they know, and no more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.support.harness import eventually
from worker.core.errors import Misconfigured
from worker.service.supervisor import pages as pages_module
from worker.service.supervisor.pages import PageBody, Pages, json_answer

WELL: dict[str, Any] = {"ready": True}
ILL: dict[str, Any] = {"ready": False, "reason": 'no "answer"\r\n\x1b[31m'}


def make_pages(host: str = "127.0.0.1", port: int = 0) -> Pages:
    return Pages(host, port, {"/well": well, "/ill": ill})


async def well() -> PageBody:
    return json_answer(WELL)


async def ill() -> PageBody:
    return json_answer(ILL, well=False)


async def raw(pages: Pages, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", pages.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_a_page_tells_whether_all_is_well() -> None:
    async with make_pages() as pages, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{pages.port}"
        for path, status, body in (
            ("/well", 200, WELL),
            ("/well?verbose=1", 200, WELL),
            ("/ill", 503, ILL),
        ):
            async with session.get(base + path) as response:
                assert response.content_type == "application/json"
                assert (response.status, await response.json()) == (status, body)
        async with session.get(f"{base}/") as response:
            assert response.status == 404
        async with session.post(f"{base}/well", data=b"x" * 100_000) as response:
            assert response.status == 405
        async with session.head(f"{base}/ill") as response:
            assert response.status == 503
            assert int(response.headers["Content-Length"]) == len(json.dumps(ILL))


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe\r\n\r\n", b"GET  /well HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_request_is_no_page(request_: bytes) -> None:
    async with make_pages() as pages:
        assert (await raw(pages, request_)).startswith(b"HTTP/1.1 404 ")


async def test_an_endless_request_is_cut_off() -> None:
    async with make_pages() as pages:
        reader, writer = await asyncio.open_connection("127.0.0.1", pages.port)
        writer.write(b"GET /well HTTP/1.1\r\n" + b"X: y\r\n" * 10_000)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readexactly(1), 10)
        writer.close()


async def test_a_slow_request_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "REQUEST_SECONDS", 0.05)
    async with make_pages() as pages:
        assert await raw(pages, b"GET /well") == b""


async def test_a_port_in_use_and_a_host_that_is_not_ours_are_told() -> None:
    async with make_pages() as first:
        with pytest.raises(Misconfigured, match=f"WORKER_HEALTH__PORT={first.port}: cannot listen"):
            await make_pages(port=first.port).__aenter__()
    with pytest.raises(Misconfigured, match="cannot listen"):
        await make_pages(host="192.0.2.1").__aenter__()


async def test_the_port_is_free_again_afterwards() -> None:
    async with make_pages() as first:
        port = first.port

    async def again() -> bool:
        async with make_pages(port=port) as second:
            return second.port == port

    assert await eventually(again)
