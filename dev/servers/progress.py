"""Words for people on standard error; what takes longer than a second shows that it goes on."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(words: str) -> None:
    """One line."""
    print(words, file=sys.stderr, flush=True)


@contextmanager
def step(words: str) -> Iterator[None]:
    """Show "starting RabbitMQ … 3 s" while the block runs, and nothing if it is quick.

    On a terminal the seconds count up in place; elsewhere one line has to do.
    """
    over = threading.Event()
    clock = threading.Thread(target=_show, args=(words, over), daemon=True)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()


def _show(words: str, over: threading.Event) -> None:
    started = time.monotonic()
    if over.wait(1):
        return
    if not sys.stderr.isatty():
        say(f"{words} …")
        return
    while True:
        seconds = time.monotonic() - started
        print(f"\r{words} … {seconds:.0f} s ", end="", file=sys.stderr, flush=True)
        if over.wait(1 - seconds % 1):
            say("")
            return
