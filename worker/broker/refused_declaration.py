"""One sentence for an exchange or a queue that the broker would not declare, and what mends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aiormq.exceptions import AMQPError

if TYPE_CHECKING:
    from worker.broker.topology import Topology

PLUGIN_OF = {
    "x-modulus-hash": "rabbitmq_sharding",
    "x-consistent-hash": "rabbitmq_consistent_hash_exchange",
}
"""What has to be enabled for a type of exchange; RabbitMQ 4.3 has the first built in."""

_SETTING_OF = {
    "x-delivery-limit": "WORKER_BROKER__DELIVERY_LIMIT",
    "x-max-age": "WORKER_BROKER__EVENTS_RETENTION_DAYS",
    "x-message-ttl": "WORKER_BROKER__DEAD_LETTERS_RETENTION_DAYS",
    "x-max-length-bytes": "the WORKER_BROKER__…_MAX_BYTES setting of this queue",
}


def lacks_plugin(topology: Topology, name: str, error: AMQPError) -> str | None:
    """What mends it if the broker does not know the partitioner's type; None if it does.

    That is a 503 up to RabbitMQ 3.13 and a 406 from 4.0 on, like other arguments.
    """
    type_ = topology.settings.partition_exchange
    if name != topology.partitioner or "exchange type" not in str(error):
        return None
    return (
        f"WORKER_PARTITIONS={topology.partition_count} needs exchanges of the type "
        f"{type_}, which this RabbitMQ does not know. On each of its nodes: "
        f"rabbitmq-plugins enable {PLUGIN_OF[type_]}"
    )


def over_limit(kind: str, name: str, reply: str) -> str | None:
    """What mends it if the broker may hold no more of the kind; None if that is not why."""
    if "inequivalent" in reply or "limit" not in reply:
        return None
    return (
        f"The {kind} {name!r} cannot be made, since the broker may hold no more: {reply}. Delete "
        f"{kind}s that nobody needs, or raise the limit: of the virtual host by rabbitmqctl "
        "set_vhost_limits (max-queues), of all by the broker's configuration"
    )


def differs(kind: str, name: str, reply: str) -> str:
    """Which argument differs, and what mends it."""
    found = re.search(
        r"inequivalent arg '(?P<arg>[^']+)'.*?received (?P<ours>.+?) but current is (?P<theirs>.+)",
        reply,
        re.DOTALL,
    )
    what = (
        f"{found['arg']} is {found['theirs'].strip()}, this worker declares {found['ours'].strip()}"
        if found
        else reply
    )
    setting = found and _SETTING_OF.get(found["arg"])
    mend = f"Set {setting} to what is there, or drain" if setting else "Drain"
    return (
        f"The {kind} {name!r} exists with other arguments: {what}. {mend} and delete it "
        f"(rabbitmqctl delete_{kind} {name}) so that it is made anew"
    )
