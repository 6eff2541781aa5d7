"""How a plain aio-pika program consumes until SIGTERM, and then finishes what it has in hand."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage

Handle = Callable[[AbstractIncomingMessage, AbstractExchange], Awaitable[None]]
"""Takes a command and the exchange of events; when it returns, the command is acknowledged."""


async def consume(handle: Handle, *, prefetch: int) -> None:
    """Call the handler with each message of `BENCH_QUEUE`, at most `prefetch` at a time."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    in_hand: set[asyncio.Task[None]] = set()
    async with await aio_pika.connect_robust(os.environ["BENCH_BROKER_URL"]) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        events = await channel.get_exchange(os.environ["BENCH_EVENTS"])

        async def on_message(message: AbstractIncomingMessage) -> None:
            task = asyncio.current_task()
            assert task is not None
            in_hand.add(task)
            task.add_done_callback(in_hand.discard)
            async with message.process():
                await handle(message, events)

        queue = await channel.get_queue(os.environ["BENCH_QUEUE"])
        consumer = await queue.consume(on_message)
        await stop.wait()
        await queue.cancel(consumer)
        if in_hand:
            await asyncio.wait(in_hand)


def persistent(body: bytes) -> aio_pika.Message:
    """A message that survives a restart of the broker."""
    return aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
