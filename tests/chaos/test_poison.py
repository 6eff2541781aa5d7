"""G5 where it is hardest: a command that ends the whole process, among innocent ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dev.worker_processes import WorkerProcess
from tests.support.harness import Harness, creates, eventually


async def test_a_command_that_kills_its_worker_takes_no_innocent_with_it(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    await survive_a_poison(harness, environment, tmp_path)


async def survive_a_poison(harness: Harness, environment: dict[str, str], tmp_path: Path) -> None:
    environment |= {"WORKER_ENTITIES": "tests.support.probes", "WORKER_BROKER__DELIVERY_LIMIT": "8"}
    worker = WorkerProcess(environment, tmp_path / "worker.log")
    await worker.start()
    try:
        await harness.subscribe()
        await harness.ask("user.create", data={"username": "ann", "email": "ann@example.com"})
        innocents = await harness.send_all(creates(range(50)))
        poison = await harness.send("user.kill_the_process", target={"username": "ann"})
        innocents += await harness.send_all(creates(range(50, 300)))
        deaths = 0
        while poison not in {event.command_id for event in harness.events}:
            ended = asyncio.create_task(worker.process.wait())
            answered = asyncio.create_task(harness.event(poison, within=30))
            await asyncio.wait({ended, answered}, return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
            await asyncio.gather(answered, return_exceptions=True)
            if ended.done():
                assert ended.result() == 99
                deaths += 1
                await worker.start(ready=False)
            ended.cancel()
        await eventually(
            lambda: {*innocents, poison} <= {event.command_id for event in harness.events}
        )
        assert await worker.stop() == 0
    finally:
        await worker.end()

    (letter,) = await harness.dead_letters(1)
    event = await harness.event(poison)
    assert event.routing_key == "user.kill_the_process.failed"
    assert letter.json["id"] == poison
    assert letter.headers["x-code"] == "failed"
    assert deaths == 4
    for id_ in innocents:
        assert (await harness.event(id_)).routing_key == "user.created"
