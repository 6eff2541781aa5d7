"""A command as a message to publish, if it is one that a worker can use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from worker.cli.terminal import Misused

if TYPE_CHECKING:
    from worker.broker.topology import Topology
    from worker.codec.codec import Codec
    from worker.core.messages import ErrorDetail, Item, Problem, Publication

MOST_FAULTS_TOLD = 5
OPTIONS = {
    "/id": "--id",
    "/key": "--key",
    "/target": "--target",
    "/data": "--data",
    "/expected_version": "--expected-version",
}


def publication_of(
    topology: Topology,
    codec: Codec,
    command: dict[str, Any],
    body: bytes | None = None,
    *,
    options: dict[str, str] | None = None,
    reply_to: str | None = None,
) -> Publication:
    """The command as a message; `body` are its bytes, if there are some already.

    What is wrong is told by the `options` of the command line that stand for its members.

    Raises `Misused`, with what is wrong, for a command that a worker with these entities could only
    set aside as a dead letter.
    """
    from worker.core.messages import Rejected

    written = json.dumps(command).encode() if body is None else body
    item = codec.decode_unsent(written, reply_to=reply_to)
    if isinstance(item, Rejected):
        given = OPTIONS if options is None else options
        raise Misused(_refusal(item.problem, given if body is None else {}))
    return as_publication(topology, item, command)


def as_publication(topology: Topology, item: Item, command: dict[str, Any]) -> Publication:
    """The command, which was read as this item, as a message; also one that would be set aside."""
    from worker.codec.routing_key import routing_key_of, short
    from worker.core.messages import Publication

    envelope = item.envelope
    id_, type_ = command.get("id"), command["type"]
    return Publication(
        exchange=topology.commands,
        routing_key=routing_key_of(envelope.key, type_),
        body=envelope.delivery.body,
        content_type="application/json",
        type=short(type_),
        correlation_id=short(id_) if isinstance(id_, str) else None,
    )


def _refusal(problem: Problem, options: dict[str, str]) -> str:
    """What is wrong with a command, in one sentence."""
    faults = problem.errors[:MOST_FAULTS_TOLD]
    if not faults:
        return f"the worker would refuse it: {problem.detail.rstrip('.')}"
    told = "; ".join(_told(fault, options) for fault in faults)
    more = len(problem.errors) - len(faults)
    return f"the worker would refuse it: {told}" + (f"; and {more} more" if more else "")


def _told(fault: ErrorDetail, options: dict[str, str]) -> str:
    return f"{options.get(fault.pointer, fault.pointer)} {fault.detail}"
