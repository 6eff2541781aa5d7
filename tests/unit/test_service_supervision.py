"""A part of the service that ends by itself is noticed, whatever it is and whatever ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from worker.core.tasks import Ended, all_of
from worker.service import service as service_module
from worker.service.service import Service
from worker.settings.settings import Settings


async def _for_ever(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def returns(*_: object) -> None: ...


async def fails(*_: object) -> None:
    raise ValueError("a bug")


async def is_cancelled(*_: object) -> None:
    raise asyncio.CancelledError


ENDS: dict[str, Callable[..., Awaitable[None]]] = {
    "returns": returns,
    "fails": fails,
    "is cancelled": is_cancelled,
}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """One whose parts do nothing, for ever."""
    service = Service(Settings.model_validate({"health": {"port": 0}}))
    monkeypatch.setattr(service_module, "keep_connected", _for_ever)
    monkeypatch.setattr(service, "_watch_the_database", _for_ever)
    monkeypatch.setattr(service, "_keep_pruned", _for_ever)
    monkeypatch.setattr(service._lanes, "run", _for_ever)
    service.beside("beside", _for_ever)
    return service


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("part", ["lanes", "events", "database", "retention", "beside"])
async def test_a_part_that_ends_by_itself_is_noticed(
    service: Service, monkeypatch: pytest.MonkeyPatch, part: str, how: str
) -> None:
    def end(*arguments: Any) -> Awaitable[None]:
        ends = part != "events" or arguments[1].endswith("events")
        return ENDS[how]() if ends else _for_ever()

    match part:
        case "lanes":
            monkeypatch.setattr(service._lanes, "run", end)
        case "events":
            monkeypatch.setattr(service_module, "keep_connected", end)
        case "database":
            monkeypatch.setattr(service, "_watch_the_database", end)
        case "retention":
            monkeypatch.setattr(service, "_keep_pruned", end)
        case _:
            service.beside("beside", end)  # type: ignore[arg-type]
    with pytest.raises((Ended, ValueError)):
        await asyncio.wait_for(service.run(), 10)
    assert not service.health.ready
    assert "it has ended" in (service.health.part(part).reason or "")


async def test_work_that_is_cancelled_from_elsewhere_has_failed() -> None:
    inner: list[asyncio.Task[Any]] = []

    async def cancelled_from_elsewhere() -> None:
        task = asyncio.current_task()
        assert task is not None
        inner.append(task)
        await _for_ever()

    both = asyncio.create_task(all_of(cancelled_from_elsewhere(), _for_ever()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    inner[0].cancel()
    with pytest.raises(Ended):
        await asyncio.wait_for(both, 5)


async def test_who_is_cancelled_ends_its_works() -> None:
    both = asyncio.create_task(all_of(_for_ever(), _for_ever()))
    await asyncio.sleep(0)
    before = asyncio.all_tasks()
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert asyncio.all_tasks() <= before
