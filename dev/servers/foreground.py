"""Running the user's command so that signals reach it as if we were not there."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from types import FrameType

from dev.servers.errors import ServerError

_FROM_TERMINAL = {signal.SIGINT, signal.SIGHUP}
_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def run(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """The command's exit code, 128 + n if a signal ended it; our own servers are not its affair.

    On a terminal, the command shares our process group: Ctrl-C reaches both of us, and passing
    it on would make a second one of it, which means "at once" to many a program. Elsewhere the
    command gets a group of its own, and each signal exactly once, from us.
    """
    shared = _on_terminal()
    child: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if child is None:
            early.append(number)
        elif not (shared and number in _FROM_TERMINAL):
            child.send_signal(number)

    for number in _SIGNALS:
        signal.signal(number, forward)
    try:
        child = subprocess.Popen(argv, env=dict(environment), process_group=None if shared else 0)
    except OSError as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        raise ServerError(f"{argv[0]} cannot be run: {error.strerror}.", code=code) from None
    for missed in early:
        forward(missed, None)
    code = child.wait()
    return code if code >= 0 else 128 - code


def ignore_signals() -> None:
    """From here on the servers are being stopped, and half stopped they would stay."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _on_terminal() -> bool:
    """Whether a Ctrl-C would reach us from a terminal, that is, our process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
