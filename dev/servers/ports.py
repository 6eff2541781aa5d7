"""Free ports for servers that keep them from run to run."""

import random
import socket

# Below the range that systems hand out for outgoing connections (32768 and up on Linux): there
# any client could take a server's port while the server restarts.
_RANGE = range(20000, 30000)
_WELL_KNOWN = {25672, 27017}
# A server that is being started takes a second to occupy its port, which looks free until then.
_handed_out: set[int] = set()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # Connections of a server that has just ended linger for a minute; they are no obstacle.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(remembered: int | None) -> int:
    """The remembered port if it is free, else one that no server of this process was given."""
    if remembered is not None and is_free(remembered):
        _handed_out.add(remembered)
        return remembered
    # Chance keeps two checkouts apart that choose at the same moment.
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in _handed_out | _WELL_KNOWN and is_free(port):
            _handed_out.add(port)
            return port
    raise OSError(f"no free port from {_RANGE.start} to {_RANGE.stop - 1}")
