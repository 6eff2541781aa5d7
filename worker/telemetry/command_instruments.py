"""The instruments of commands: what `CommandMeter` counts."""

from __future__ import annotations

from worker.telemetry.instruments import Instrument

TYPE, OUTCOME, CODE, REASON = "type", "outcome", "code", "reason"


def _counter(name: str, unit: str, meaning: str, *attributes: str) -> Instrument:
    return Instrument(name, "counter", unit, meaning, attributes)


def _duration(name: str, meaning: str) -> Instrument:
    return Instrument(name, "histogram", "s", meaning)


COMMANDS = _counter(
    "worker.commands",
    "{command}",
    "Commands that were answered, by what they came to: `done`, `refused` or `dead_letter`; of the "
    "last two the code says why. A `type` that no entity has is `unknown`.",
    *(TYPE, OUTCOME, CODE),
)
DUPLICATES = _counter(
    "worker.commands.duplicates",
    "{command}",
    "Of these: duplicates, which got the stored answer again.",
    TYPE,
)
RETRIES = _counter(
    "worker.commands.retries",
    "{attempt}",
    "Attempts that failed and are followed by another, by what was raised.",
    *(TYPE, REASON),
)
POSTPONED = _counter(
    "worker.commands.postponed",
    "{command}",
    "Commands that were put back because the database was away, by what was raised.",
    REASON,
)
CONSUMED = _counter(
    "messaging.client.consumed.messages", "{message}", "Messages that the broker delivered."
)
REDELIVERED = _counter(
    "worker.commands.redelivered",
    "{message}",
    "Of these: some worker had it before, and did not acknowledge it.",
)
SUSPECTS = _counter(
    "worker.commands.suspects",
    "{message}",
    "Of these: so often that it may be what ends the workers.",
)
ANSWERS = _counter(
    "messaging.client.sent.messages",
    "{message}",
    "Events and dead letters that were handed to the broker and confirmed, or given up.",
    "kind",
)
AGE = _duration(
    "worker.command.age",
    "From the publisher's `timestamp`, which has whole seconds, to the transaction; of the first "
    "of each group, where it has one.",
)
LANE = _duration(
    "worker.lane.wait_time", "From the delivery to the transaction, of the first of each group."
)
GROUP = _duration("worker.group.duration", "Carrying a group out, COMMIT included.")
CONFIRMS = _duration("worker.answers.wait_time", "Publishing the answers of a group, confirmed.")
PROCESS = _duration(
    "messaging.process.duration", "From the delivery of a command until it may be acknowledged."
)
SIZE = Instrument("worker.group.size", "histogram", "{command}", "Commands of a group.")
ACTIVE = Instrument(
    "worker.groups.active", "gauge", "{group}", "Groups that are carried out just now, and retries."
)

INSTRUMENTS: tuple[Instrument, ...] = (
    *(COMMANDS, DUPLICATES, RETRIES, POSTPONED, CONSUMED, REDELIVERED, SUSPECTS, ANSWERS),
    *(AGE, LANE, GROUP, CONFIRMS, PROCESS, SIZE, ACTIVE),
)
