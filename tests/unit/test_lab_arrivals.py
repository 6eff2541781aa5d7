"""Arrivals come when they should, and latency is counted from when they should have come."""

from __future__ import annotations

import fcntl
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import termios
import time
from array import array
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from worker.lab.arrivals import Schedule
from worker.lab.link import pair
from worker.lab.scenario_files import load_scenario
from worker.lab.steps import QueryStep
from worker.lab.transaction import LabTransaction

POISSON = Schedule("poisson", 100, warm_up_seconds=10, measure_seconds=90, seed=7)


def test_how_long_work_takes_has_nothing_to_do_with_when_it_comes() -> None:
    scenario = load_scenario("steady", ["seed=7"])
    transaction = LabTransaction(scenario, "any")
    sleep = next(step for step in scenario.step if isinstance(step, QueryStep))
    gaps = [later - earlier for earlier, later in pairwise(POISSON.times())]
    lasts = [sleep.draw(transaction._random) for _ in gaps]
    # By chance 0.01; with the same numbers behind both it would be 1.
    assert abs(statistics.correlation(gaps, lasts)) < 0.04


def test_poisson_arrivals_have_the_rate_and_the_scatter_of_a_poisson_process() -> None:
    times = list(POISSON.times())
    gaps = [later - earlier for earlier, later in pairwise(times)]
    # 10,000 expected: the standard deviation is 100.
    assert abs(len(times) - 10_000) < 400
    mean = statistics.mean(gaps)
    assert statistics.stdev(gaps) == pytest.approx(mean, rel=0.05)
    # Of a process without memory, one gap in e is longer than the mean.
    longer = sum(gap > mean for gap in gaps) / len(gaps)
    assert longer == pytest.approx(1 / math.e, abs=0.02)
    per_second = [sum(second <= each < second + 1 for each in times) for second in range(100)]
    assert statistics.variance(per_second) == pytest.approx(100, rel=0.4)


def test_the_same_seed_draws_the_same_arrivals_and_another_one_others() -> None:
    assert list(POISSON.times()) == list(POISSON.times())
    assert list(POISSON.times()) != list(replace(POISSON, seed=8).times())


def test_constant_arrivals_are_evenly_spaced() -> None:
    schedule = Schedule("constant", 50, warm_up_seconds=1, measure_seconds=1, seed=1)
    times = list(schedule.times())
    assert len(times) == 99  # at 20 ms, 40 ms … 1,980 ms
    assert all(later - earlier == pytest.approx(0.02) for earlier, later in pairwise(times))


def test_bursts_come_at_once() -> None:
    schedule = Schedule(
        "burst", 1, warm_up_seconds=0, measure_seconds=1, seed=1, burst_size=3,
        burst_every_seconds=0.4,
    )  # fmt: skip
    assert list(schedule.times()) == [0.0] * 3 + [0.4] * 3 + [0.8] * 3


@pytest.mark.parametrize("ramp", [0.001, 50.0, 100.0, 300.0])
def test_a_ramp_begins_after_the_warm_up_and_ends_at_its_rate(ramp: float) -> None:
    schedule = Schedule(
        "constant", 100, warm_up_seconds=2, measure_seconds=10, seed=1, ramp_to_per_second=ramp
    )
    times = list(schedule.times())
    assert times == sorted(times)
    assert sum(each < 2 for each in times) == pytest.approx(200, abs=1)
    assert len(times) == pytest.approx(200 + 10 * (100 + ramp) / 2, abs=2)
    if ramp > 10:
        assert sum(each >= 11 for each in times) == pytest.approx(ramp + (100 - ramp) / 20, abs=2)


class Generator:
    """The generator as a process, and the end of the link that the worker would have."""

    def __init__(self, **load: Any) -> None:
        self.end, theirs = pair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.lab.generator", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # It is to keep time, and is not to count its own lines meanwhile.
            env={**os.environ, "COVERAGE_PROCESS_CONFIG": ""},
        )
        theirs.close()
        self._wait_until_it_listens()
        self.begin_ns = time.monotonic_ns() + 300_000_000
        until_ns = self.begin_ns + 1_000_000_000
        window = {"begin_ns": self.begin_ns, "from_ns": self.begin_ns, "until_ns": until_ns}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**window, "load": load, "seed": 1}).encode() + b"\n")
        self.process.stdin.flush()

    def _wait_until_it_listens(self) -> None:
        """It takes the first space of its orders when it is there; a busy machine is slow to be."""
        assert self.process.stdin is not None
        self.process.stdin.write(b" ")
        self.process.stdin.flush()
        unread = array("i", [1])
        until = time.monotonic() + 60
        while unread[0]:
            assert time.monotonic() < until
            time.sleep(0.005)
            fcntl.ioctl(self.process.stdin, termios.FIONREAD, unread)

    def told(self) -> dict[str, Any]:
        self.end.close()
        out, _ = self.process.communicate(timeout=10)
        found: dict[str, Any] = json.loads(out)
        return found


def schedule(rate: float) -> dict[str, Any]:
    return {
        "kind": "open",
        "arrivals": "constant",
        "rate_per_second": rate,
        "warm_up_seconds": 0,
        "measure_seconds": 1,
    }


def received(end: socket.socket) -> list[tuple[int, int]]:
    """Each arrival's intended time, and when it was received."""
    found, rest = [], b""
    while piece := end.recv(1 << 16):
        now = time.monotonic_ns()
        rest += piece
        whole = len(rest) // 8 * 8
        found += [(intended, now) for intended in array("q", rest[:whole])]
        rest = rest[whole:]
    return found


def test_the_generator_sends_each_arrival_at_its_time_and_never_before() -> None:
    generator = Generator(**schedule(200))
    arrivals = received(generator.end)
    told = generator.told()
    assert len(arrivals) == told["intended"] == 199
    assert all(intended <= came for intended, came in arrivals)
    assert [intended for intended, _ in arrivals] == [
        generator.begin_ns + round(number / 200 * 1e9) for number in range(1, 200)
    ]
    # Most come within a millisecond; a busy machine holds up either process for some.
    assert statistics.median(came - intended for intended, came in arrivals) < 20_000_000


def test_a_worker_that_stands_still_delays_no_intended_time() -> None:
    generator = Generator(**schedule(20_000))
    while time.monotonic_ns() < generator.begin_ns + 600_000_000:
        time.sleep(0.05)  # as a blocked event loop would: nobody reads, the socket is full
    arrivals = received(generator.end)
    told = generator.told()
    assert len(arrivals) == told["intended"] == 19_999
    # What waited for us carries its own time: the stall shows in all that came meanwhile.
    ages = [(came - intended) / 1e9 for intended, came in arrivals]
    assert max(ages) > 0.5
    assert sum(age > 0.3 for age in ages) > 4_000
    # And the generator kept time all along: the delay is none of its own. Had it waited for us,
    # 12,000 would be late; on a busy machine some are.
    assert told["late"] < 6_000


def test_a_closed_load_has_so_many_requests_out_and_no_more() -> None:
    generator = Generator(kind="closed", clients=3, think_seconds=0.05)
    outstanding, most, total = 0, 0, 0
    while piece := generator.end.recv(1 << 16):
        arrived = len(piece) // 8
        total += arrived
        outstanding += arrived
        most = max(most, outstanding)
        generator.end.send(b"\0" * outstanding)
        outstanding = 0
    assert most == 3
    # Each client asks every 50 ms for a second.
    assert 30 < total <= 63
    assert generator.told()["intended"] == total


def test_the_generator_ends_when_the_lab_does() -> None:
    generator = Generator(**{**schedule(10), "measure_seconds": 60})
    assert generator.process.stdin is not None
    generator.end.recv(8)
    generator.process.stdin.close()
    assert generator.process.wait(5) == 0
    assert generator.process.stdout is not None
    generator.process.stdout.close()
    generator.end.close()
