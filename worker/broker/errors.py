"""One sentence for what RabbitMQ refuses or cannot do: what happened, why, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping

from aiormq import channel, connection
from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ChannelClosed,
    ConnectionClosed,
    ConnectionNotAllowed,
    DeliveryError,
    ProbableAuthenticationError,
)
from yarl import URL

from worker.core.errors import Misconfigured, Unreachable
from worker.settings.tls import mismatch, was_dropped


def none_of(faults: Mapping[URL, Exception]) -> Unreachable | Misconfigured:
    """Why none of the nodes could be used."""
    explained = [explain(error, url) for url, error in faults.items()]
    # The nodes of a cluster share accounts and virtual hosts: what one refuses, they all would.
    for fault in explained:
        if isinstance(fault, Misconfigured) or len(explained) == 1:
            return fault
    told = "; ".join(f"{_where(url)}: {_reason_of(error)}" for url, error in faults.items())
    return Unreachable(
        f"RabbitMQ cannot be reached at any of {len(faults)} nodes ({told}). "
        "Start one of them, or set WORKER_BROKER__URL"
    )


def explain(error: BaseException, url: URL) -> Unreachable | Misconfigured:
    """One sentence for a node that could not be used, without its password."""
    where = _where(url)
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return Misconfigured(
            f"RabbitMQ refuses the account or its password ({where}). "
            "Set WORKER_BROKER__URL to an account that may log in"
        )
    if (reason := mismatch(error)) is not None:
        return Misconfigured(
            f"RabbitMQ cannot be reached by TLS ({where}): {reason}. Look at WORKER_BROKER__URL "
            "and WORKER_BROKER__TLS_CA_FILE, or mend its certificate"
        )
    # A limit on connections comes with the same code; that passes.
    if isinstance(error, ConnectionNotAllowed) and "limit" not in str(error):
        return Misconfigured(
            f"RabbitMQ refuses the virtual host ({where}): {error}. "
            "Make it with rabbitmqctl add_vhost and grant it with rabbitmqctl set_permissions"
        )
    reason = _reason_of(error)
    if url.scheme == "amqps" and was_dropped(error):
        reason += "; it may want another certificate of the worker's: …__TLS_CERTIFICATE_FILE"
    return Unreachable(
        f"RabbitMQ cannot be reached ({where}): {reason}. Start it, or set WORKER_BROKER__URL"
    )


def lacks_right(error: ChannelAccessRefused) -> Misconfigured:
    """One sentence for what the account is not allowed to do."""
    return Misconfigured(
        f"The broker account lacks a right: {error}. Grant it with rabbitmqctl set_permissions; "
        "docs/security.md has the lines for each kind of account"
    )


CONNECTION_FORCED = 320
"""An operator ended the connection, or the node stops: nothing that was published is at fault."""
ABOUT_THE_MESSAGE = frozenset({311, 313, 406, 501, 502, 503, 505, 540, 541})
"""Reply codes that tell of the message itself. A right or an exchange that is missing (403, 404)
may be missing for all."""

_CODES: dict[type, int] = {
    error: code
    for known in (channel.EXCEPTION_MAPPING, connection.EXCEPTION_MAPPING)
    for code, error in known.items()
}


def code_of(error: BaseException | None) -> int | None:
    """The reply code with which the broker closed a channel or connection, if it did."""
    if (code := _CODES.get(type(error))) is not None:
        return code
    if isinstance(error, ChannelClosed | ConnectionClosed) and error.args:
        return error.args[0] if isinstance(error.args[0], int) else None
    return None


def is_about_all(fault: BaseException) -> bool:
    """Whether every message of that kind meets the same: a right that the account lacks.

    Where it may write to the exchange, and not with this routing key, RabbitMQ names the topic.
    """
    return code_of(fault) == 403 and "access to exchange" in str(fault)


def short_reason(error: BaseException) -> str:
    """Why the broker did not take a message, as one of a few words for a metric."""
    if isinstance(error, DeliveryError):
        return "returned" if error.frame.name == "Basic.Return" else "nack"
    if (code := code_of(error)) is not None:
        return str(code)
    return "silence" if isinstance(error, TimeoutError) else "connection_lost"


def _where(url: URL) -> str:
    return str(url.with_password("***").with_query(None) if url.password else url.with_query(None))


def _reason_of(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case StopAsyncIteration():
            return "it ended the connection at once"
    return str(error) or type(error).__name__
