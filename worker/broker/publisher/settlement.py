"""Answers settled commands in order, and has each acknowledged once its answer is confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from worker.broker.publisher.held_answers import HeldAnswer, HeldAnswers
from worker.broker.publisher.persistent_publisher import MessageKind, PersistentPublisher
from worker.broker.publisher.publications import Publications, reply
from worker.broker.publisher.publisher import Faults, Publisher
from worker.broker.publisher.replies import Replies
from worker.broker.topology import Topology
from worker.core.messages import DeadLetter, Envelope, Job, ResultEvent, Settled
from worker.core.tasks import gather_all
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Component

Pair = tuple[Job, Settled]


class Settlement:
    """Publishes what commands have come to; what the broker does not take is held apart.

    An answer has `max_attempts`; `part` is down for as long as one is held. There are at most
    `most` commands to answer, and so many replies; those are given up after `reply_seconds`.
    """

    def __init__(
        self,
        topology: Topology,
        publisher: Publisher,
        part: Component,
        *,
        max_attempts: int,
        most: int,
        reply_seconds: float,
    ) -> None:
        self._answers = Publications(topology)
        self._publisher = publisher
        self._replies = Replies(topology, most=most, seconds=reply_seconds)
        persistent = PersistentPublisher(publisher, max_attempts=max_attempts)
        # Twice: what goes back to the queue once is still tried here.
        self._held = HeldAnswers(self._answers, persistent, part, most=2 * most)

    async def run(self) -> None:
        """Try again what is held, and keep the replies' connection; for ever, unless one fails.

        Ends what is held with it: those commands go back to the queue.
        """
        await gather_all(self._held.run(), self._replies.run())

    async def finish(self) -> None:
        """Wait a moment for the last replies."""
        await self._replies.finish()

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instruments, for `/metrics`."""
        yield from self._held.read()
        yield from self._replies.read()

    async def answer(self, settled: Sequence[Pair]) -> None:
        """Return when each is answered and settled, or held.

        Dead letters leave first: who reads in an event of one finds it in place.
        """
        free = (
            self._not_held(settled, {}, MessageKind.EVENT, 0, MessageKind.DEAD_LETTER)
            if self._held
            else settled
        )
        free = await self._set_aside(free)
        self._reply(settled)
        at_first = self._held.number_taken(MessageKind.EVENT)
        faults = await self._publisher.publish([self._answers.event(*pair) for pair in free])
        self._held.taken(MessageKind.EVENT, len(free) - len(faults))
        if faults:
            free = self._not_held(free, faults, MessageKind.EVENT, at_first, MessageKind.EVENT)
        for job, _ in free:
            delivery = job.envelope.delivery
            delivery.source.settle(delivery.tag)

    async def _set_aside(self, free: Sequence[Pair]) -> Sequence[Pair]:
        """Publish the dead letters among these; return those whose events may leave."""
        letters = [
            (number, job, outcome)
            for number, (job, outcome) in enumerate(free)
            if isinstance(outcome, DeadLetter)
        ]
        if not letters:
            return free
        at_first = self._held.number_taken(MessageKind.DEAD_LETTER)
        found = await self._publisher.publish(
            [self._answers.dead_letter(job, outcome) for _, job, outcome in letters]
        )
        self._held.taken(MessageKind.DEAD_LETTER, len(letters) - len(found))
        faults = {letters[place][0]: fault for place, fault in found.items()}
        if not faults:
            return free
        return self._not_held(free, faults, MessageKind.DEAD_LETTER, at_first, MessageKind.EVENT)

    async def reply(self, envelope: Envelope, answer: ResultEvent) -> None:
        """Send the answer of a query; return when the broker has it, or when it is given up."""
        await self._replies.deliver(self._answers.reply(envelope, answer))

    def _reply(self, settled: Sequence[Pair]) -> None:
        replies = [
            reply(self._answers.event(job, outcome), job.envelope.reply_to)
            for job, outcome in settled
            if job.envelope.reply_to is not None
        ]
        if replies:
            self._replies.send(replies)

    def _not_held(
        self,
        pairs: Sequence[Pair],
        faults: Faults,
        refused: MessageKind,
        at_first: int,
        otherwise: MessageKind,
    ) -> list[Pair]:
        """Hold those at fault, and what must not overtake them or be overtaken; return the others.

        `refused` is what was not taken of the first, of which `at_first` had been taken before;
        `otherwise` is what is next of the others. No event has left yet where a dead letter was
        refused, so that what comes before it with its key is held in front of it.
        """
        keys = (
            {}
            if refused is MessageKind.EVENT
            else {pairs[it][0].key: why for it, why in faults.items()}
        )
        free = []
        for number, (job, outcome) in enumerate(pairs):
            if (fault := faults.get(number)) is not None:
                self._held.hold(HeldAnswer(job, outcome, refused, fault, at_first), fault)
            elif job.key is not None and job.key in keys:
                self._held.hold(HeldAnswer(job, outcome, otherwise), keys[job.key])
            elif not self._held.holds_back(HeldAnswer(job, outcome, otherwise)):
                free.append((job, outcome))
        return free
