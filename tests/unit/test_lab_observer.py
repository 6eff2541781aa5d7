"""CPU is told as cores, of a process and of the whole machine."""

from __future__ import annotations

import os
from time import process_time

import pytest

from worker.lab.observer import CpuMeter, host_seconds, process_seconds


def test_a_process_that_works_is_seen_and_so_is_the_machine_it_works_on() -> None:
    own, host = CpuMeter(process_seconds(os.getpid())), CpuMeter(host_seconds)
    until = process_time() + 0.5
    while process_time() < until:
        pass
    used, everybody = own.cores(), host.cores()
    assert used is not None
    assert everybody is not None
    assert 0 < used < 1.1
    # The kernel counts both in hundredths of a second.
    assert everybody > used - 0.1


def test_a_process_that_is_gone_or_was_never_known_has_no_number() -> None:
    assert CpuMeter(process_seconds(None)).cores() is None
    readings = iter([1.0, None])
    assert CpuMeter(lambda: next(readings)).cores() is None


def test_cores_are_seconds_of_cpu_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    readings, times = iter([10.0, 13.0]), iter([100.0, 102.0])
    monkeypatch.setattr("worker.lab.observer.monotonic", lambda: next(times))
    assert CpuMeter(lambda: next(readings)).cores() == 1.5
