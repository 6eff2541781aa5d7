"""One sentence for what RabbitMQ refuses or cannot do: what happened, why, and what mends it."""

from __future__ import annotations

from collections.abc import Mapping

from aiormq.exceptions import (
    AuthenticationError,
    ChannelAccessRefused,
    ConnectionNotAllowed,
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


def _where(url: URL) -> str:
    return str(url.with_password("***").with_query(None) if url.password else url.with_query(None))


def _reason_of(error: BaseException) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case StopAsyncIteration():
            return "it ended the connection at once"
    return str(error) or type(error).__name__
