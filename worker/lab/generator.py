"""The process that makes the load: `python -m worker.lab.generator FD`.

It does nothing but wait for the next intended time and write what is due into its end of the link
(`link.py`), so that it keeps time whatever the worker does. It reads its orders, one JSON object,
from stdin, and ends early when stdin ends; it writes how well it kept time, one JSON object, to
stdout. It imports nothing but the standard library, to be there at once.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from worker.lab.arrivals import Schedule
from worker.lab.link import packed

LATE_NS = 10_000_000
"""Beyond this, an arrival counts as late: begun later than meant, by the generator's fault."""

LONGEST_NAP_SECONDS = 0.05
"""So often it looks whether it is to stop."""


class Punctuality:
    """How much later than intended arrivals were sent, in microseconds, within the window."""

    def __init__(self, begin_ns: int, end_ns: int) -> None:
        self._begin_ns, self._end_ns = begin_ns, end_ns
        self._by_microseconds: dict[int, int] = {}
        self.intended = 0
        self.late = 0

    def sent(self, intended_ns: int, now_ns: int) -> None:
        """An arrival was sent."""
        if not self._begin_ns <= intended_ns < self._end_ns:
            return
        self.intended += 1
        lateness_ns = max(now_ns - intended_ns, 0)
        self.late += lateness_ns > LATE_NS
        # Two digits are enough, and keep the table small however long it runs.
        microseconds = lateness_ns // 1000
        scale = 10 ** max(len(str(microseconds)) - 2, 0)
        rounded = microseconds // scale * scale
        self._by_microseconds[rounded] = self._by_microseconds.get(rounded, 0) + 1

    def told(self) -> dict[str, Any]:
        """What the lab is told in the end."""
        return {
            "intended": self.intended,
            "late": self.late,
            "lateness_microseconds": sorted(self._by_microseconds.items()),
        }


class Outlet:
    """Writes without ever waiting: what a busy worker does not take yet is kept and sent later."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._kept = bytearray()

    def send(self, times_ns: Sequence[int]) -> None:
        """Send arrivals, after those that are still kept."""
        self._kept += packed(times_ns)
        self.flush()

    def flush(self) -> None:
        """Send what is kept, as far as it is taken."""
        with suppress(BlockingIOError):
            while self._kept:
                del self._kept[: self._end.send(self._kept)]

    def drain(self) -> None:
        """Wait until everything is sent, or for a second."""
        self._end.settimeout(1)
        with suppress(TimeoutError):
            self._end.sendall(self._kept)


def main() -> None:
    """Send arrivals as ordered, then tell how that went."""
    with suppress(OSError):
        os.nice(-10)  # where it may: the clock must not wait for what it measures
    line = sys.stdin.readline()
    if not line:
        return  # the lab has ended, or thought better of it
    orders = json.loads(line)
    punctuality = Punctuality(orders["from_ns"], orders["until_ns"])
    with socket.socket(fileno=int(sys.argv[1])) as end:
        try:
            if "clients" in orders:
                _closed(end, punctuality, orders)
            else:
                schedule = Schedule(**orders["schedule"])
                _open(Outlet(end), punctuality, schedule, orders)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the worker has ended, and the lab knows why
    print(json.dumps(punctuality.told()), flush=True)  # noqa: T201


def _open(
    outlet: Outlet, punctuality: Punctuality, schedule: Schedule, orders: dict[str, Any]
) -> None:
    begin_ns, until_ns = orders["begin_ns"], orders["until_ns"]
    times: Iterator[int] = (begin_ns + round(time * 1e9) for time in schedule.times())
    following = next(times, None)
    while following is not None:
        outlet.flush()
        now = time.monotonic_ns()
        if now < following:
            if _is_stopped((following - now) / 1e9):
                return
            continue
        due = []
        while following is not None and following <= now:
            due.append(following)
            punctuality.sent(following, now)
            following = next(times, None)
        outlet.send(due)
    outlet.drain()
    # The link ends with the window, not with the last arrival: it is measured until then.
    while (ahead := until_ns - time.monotonic_ns()) > 0:
        if _is_stopped(ahead / 1e9):
            return


def _closed(end: socket.socket, punctuality: Punctuality, orders: dict[str, Any]) -> None:
    """So many clients: each asks, waits for its answer, thinks, and asks again."""
    outlet = Outlet(end)
    think_ns = round(orders["think_seconds"] * 1e9)
    # In order, since all think equally long.
    asking = deque([orders["begin_ns"]] * orders["clients"])
    while (now := time.monotonic_ns()) < orders["until_ns"]:
        due = []
        while asking and asking[0] <= now:
            asking.popleft()
            due.append(now)  # a client asks when it asks: nothing was intended before
            punctuality.sent(now, now)
        outlet.send(due)
        next_ns = min([orders["until_ns"], *islice(asking, 1)])
        readable = _wait([end, sys.stdin], max(next_ns - time.monotonic_ns(), 0) / 1e9)
        if sys.stdin in readable:
            return
        if end in readable:
            answers = end.recv(65_536)
            if not answers:
                return
            asking.extend([time.monotonic_ns() + think_ns] * len(answers))


def _is_stopped(seconds: float) -> bool:
    """Sleep for so long, or a part of it; whether stdin has ended meanwhile."""
    if seconds < LONGEST_NAP_SECONDS / 10:
        time.sleep(seconds)  # finer than what `select` promises
        return False
    return bool(_wait([sys.stdin], min(seconds - 0.001, LONGEST_NAP_SECONDS)))


def _wait(files: list[Any], seconds: float) -> list[Any]:
    return select.select(files, [], [], seconds)[0]


if __name__ == "__main__":
    main()
