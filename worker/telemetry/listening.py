"""What is said when the health pages cannot be served where they are set to be."""

from worker.core.errors import Misconfigured


def cannot_listen(host: str, port: int, error: OSError) -> Misconfigured:
    """The sentence for a host or port that cannot be listened on."""
    return Misconfigured(
        f"WORKER_HEALTH__PORT={port}: cannot listen on {host}:{port}: "
        f"{error.strerror or error}. Set another port, or 0 for any free one"
    )
