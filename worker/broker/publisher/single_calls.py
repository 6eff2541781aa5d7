"""Messages by aiormq's public calls: copies of others, and all where bursts cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from weakref import WeakValueDictionary

from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic

from worker.broker.protocol import properties
from worker.broker.protocol.frame_writer import payload_limit
from worker.broker.publisher.batch import Burst
from worker.core.messages import Publication
from worker.core.tasks import is_cancelled


class SingleCalls:
    """Sends each message of a burst on its own, and finds what became of it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.last_tag = 0
        self.last_answered = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._sends: dict[Burst, list[asyncio.Task[None]]] = {}

    def send(self, publications: Sequence[Publication], ids: Sequence[str]) -> Burst:
        """Have the messages sent; `ids` are for those that are no copies of others."""
        burst = Burst(self.last_tag + 1, ids, asyncio.get_running_loop().create_future())
        self.last_tag += len(ids)
        self._sends[burst] = [
            asyncio.create_task(self._send(burst, number, each))
            for number, each in enumerate(publications)
        ]
        return burst

    def forget(self, burst: Burst) -> None:
        """Wait no longer for what was not answered."""
        for send in self._sends.pop(burst):
            send.cancel()

    async def answers(self, seconds: float) -> bool:
        """Whether the broker confirms, in that time, what needs no queue."""
        try:
            await self.channel.basic_publish(
                b"",
                exchange="",
                routing_key="",
                properties=Basic.Properties(),
                mandatory=False,
                timeout=seconds,
                wait=False,
            )
        except asyncio.CancelledError:  # so aiormq ends what waits on a channel that ends
            if is_cancelled():
                raise
            return False
        except Exception:
            return False
        return True

    async def _send(self, burst: Burst, number: int, publication: Publication) -> None:
        own = properties.of(publication, payload_limit(self.channel.max_content_size))
        if publication.copy_of is None:
            own.message_id = burst.ids[number]
        # aiormq matches a returned message by its message_id. A dead letter keeps the one it came
        # with, which may be the command's identity; so of two with the same, the second waits.
        lock = self._locks.setdefault(own.message_id, asyncio.Lock()) if own.message_id else None
        fault = None
        try:
            async with lock or asyncio.Lock():
                await self.channel.basic_publish(
                    publication.body,
                    exchange=publication.exchange,
                    routing_key=publication.routing_key,
                    properties=own,
                    mandatory=True,
                    wait=False,
                )
        except DeliveryError as error:  # refused, or returned
            fault = error
        except asyncio.CancelledError:
            burst.lose(ConnectionError("the channel was closed"))
            raise
        except Exception as error:
            burst.lose(error)
            return
        self.last_answered = max(self.last_answered, burst.first_tag + number)
        burst.answer(number, number + 1, fault)
