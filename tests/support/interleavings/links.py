"""A link between a client and a server: what is under way in each direction, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar, cast

from tests.support.interleavings.schedule import Move, World

T = TypeVar("T")


class Blocked(Exception):
    """The server cannot take the step yet."""


class Link:
    """Carries steps, in order, to the server and back, until it is cut.

    What was on its way to the server when the link was cut may still arrive, the first part of it;
    what was on its way back does not. `lost` makes the error that the client sees, `gone` is what
    the server does when it notices.
    """

    def __init__(
        self, world: World, lost: Callable[[], Exception], gone: Callable[[], object]
    ) -> None:
        self.world = world
        self._lost = lost
        self._gone = gone
        self._to_server: deque[Move] = deque()
        self._to_client: deque[Move] = deque()
        self._waiting: set[asyncio.Future[Any]] = set()
        self.is_cut = False
        self.server_knows = False
        self.may_serve: Callable[[], bool] = lambda: True
        """Whether the server can take the next step now; a lock may be in its way."""

    def moves(self) -> Iterator[Move]:
        """What can happen next."""
        if self._to_server and self.may_serve():
            yield self.serve
        if self._to_client:
            yield self._come_back

    def serve(self) -> None:
        """The server takes the next step that has come, or finds that it must wait."""
        step = self._to_server.popleft()
        try:
            step()
        except Blocked:
            if not self.is_cut:  # else nobody waits for it any more
                self._to_server.appendleft(step)

    def _come_back(self) -> None:
        self._to_client.popleft()()

    def send(self, step: Move) -> None:
        """Send a step to the server; raise what is lost if the link is cut."""
        if self.is_cut:
            raise self._lost()
        self._to_server.append(step)

    def reply(self, step: Move) -> None:
        """Send a step to the client; it is lost if the link is cut."""
        if not self.is_cut:
            self._to_client.append(step)

    def future(self) -> asyncio.Future[Any]:
        """One that fails when the link is cut."""
        future = self.world.loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        if self.is_cut:
            _raise(future, self._lost())
        return future

    async def ask(self, serve: Callable[[], T]) -> T:
        """Have the server do something, and wait for what it returns or raises."""
        answer = self.future()

        def on_server() -> None:
            try:
                found = serve()
            except Blocked:
                raise
            except Exception as error:  # the server's answer
                self.reply(partial(_raise, answer, error))
            else:
                self.reply(partial(_return, answer, found))

        self.send(on_server)
        return cast(T, await answer)

    def cut(self, *, arriving: int = 0) -> None:
        """Cut it; the first `arriving` steps that are under way still reach the server."""
        if self.is_cut:
            return
        self.is_cut = True
        self._to_client.clear()
        while len(self._to_server) > arriving:
            self._to_server.pop()
        self._to_server.append(self._server_notices)
        for future in list(self._waiting):
            _raise(future, self._lost())

    def _server_notices(self) -> None:
        self.server_knows = True
        self._gone()

    def notice_now(self) -> None:
        """Have the server take all that arrives, and notice the cut."""
        while self._to_server:
            self.serve()

    @property
    def under_way(self) -> int:
        """How many steps are on their way to the server."""
        return len(self._to_server)


def _raise(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever was to wait for it may be gone


def _return(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)
