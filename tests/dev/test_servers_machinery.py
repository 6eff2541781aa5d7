"""Ports, processes, places, locks, and the command that `run` runs."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dev.servers import accounts, ports, processes, record
from dev.servers.locks import InUse
from dev.servers.processes import Process

REPOSITORY = Path(__file__).resolve().parents[2]


# Ports


def test_a_free_port_is_kept_and_a_taken_one_replaced() -> None:
    port = ports.choose(None)
    assert ports.choose(port) == port
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert ports.choose(port) != port


def test_no_port_is_given_to_two_servers() -> None:
    given = [ports.choose(None) for _ in range(200)]
    assert len(set(given)) == len(given)
    assert not {4369, 5432, 5672, 15672, 25672} & set(given)


def test_ports_are_remembered_but_not_by_a_copy_of_the_directory(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    kept = record.load(original)
    kept.ports["main"] = 20001
    kept.save()
    assert record.load(original).ports == {"main": 20001}
    original.rename(copy)
    assert record.load(copy).ports == {}


def test_a_damaged_record_is_a_fresh_one(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"directory": "x", "nonsense": 1}')
    assert record.load(tmp_path) == record.Record(str(tmp_path))


# Processes


def test_a_family_is_listed_parents_first() -> None:
    rows = {pid: Process(pid, parent, "S", "") for pid, parent in ((5, 3), (3, 2), (2, 1), (9, 1))}
    assert processes.with_descendants([2], rows) == [2, 3, 5]


def test_only_whole_arguments_count() -> None:
    process = Process(1, 0, "S", "/usr/bin/postgres -D /srv/data -p 1")
    assert process.program == "postgres"
    assert process.has("-D /srv/data")
    assert not process.has("-D /srv/dat")


def test_the_process_table_is_the_same_with_and_without_proc() -> None:
    rows = {process.pid: process for process in processes._from_ps()}
    mine, same = processes.table()[os.getpid()], rows[os.getpid()]
    assert (mine.parent, mine.command) == (same.parent, same.command)


def test_ending_takes_the_children_too_and_returns_when_they_are_gone() -> None:
    parent = subprocess.Popen(["/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait"])

    def family() -> list[int]:
        return processes.with_descendants([parent.pid], processes.table())

    assert processes.until(lambda: len(family()) == 3, within=5)
    pids = set(family())
    processes.end(lambda: [pid for pid in family() if pid in processes.table()])
    assert not pids & processes.table().keys()
    assert parent.wait() == -signal.SIGKILL


# Places


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user")
def test_files_go_outside_where_the_servers_user_cannot_reach_and_are_swept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, closed, open_ = (tmp_path / name for name in ("outside", "closed", "open"))
    for path in (outside, closed, open_):
        path.mkdir(mode=0o700)
    monkeypatch.setattr(accounts, "OUTSIDE", outside)
    nobody = accounts.account_for("no such user")
    inner = closed / "server"
    inner.mkdir()
    place = accounts.place_for(inner, nobody)
    assert place.parent == accounts.outside_of(inner)
    assert accounts.place_for(inner, nobody) == place
    accounts.sweep(lambda _: False)
    assert place.parent.exists()
    inner.rmdir()
    accounts.sweep(lambda _: True)
    assert place.parent.exists()
    accounts.sweep(lambda _: False)
    assert not place.parent.exists()


def test_our_own_user_keeps_its_files_inside(tmp_path: Path) -> None:
    assert accounts.place_for(tmp_path, None) == tmp_path / "state"


# Locks


def test_the_last_user_of_the_servers_knows_that_it_is_the_last(tmp_path: Path) -> None:
    first, second = InUse(tmp_path / "in-use"), InUse(tmp_path / "in-use")
    first.begin()
    second.begin()
    assert not first.end()
    assert second.end()
    assert not second.end()


# The command of `run`

_RUN = """
import sys
from dev.servers import foreground
sys.exit(foreground.run(sys.argv[1:], {"PATH": "/usr/bin:/bin"}))
"""
# Waits for a signal, then a little longer for a second one, and tells their number.
_CHILD = """
n=0
trap 'n=$((n + 1))' INT TERM
echo ready
while [ $n = 0 ]; do sleep 0.05; done
sleep 0.3
exit $((40 + n))
"""


@pytest.mark.parametrize("to_group", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_exactly_once(number: signal.Signals, to_group: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, "/bin/sh", "-c", _CHILD],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"ready\n"
        (os.killpg if to_group else os.kill)(runner.pid, number)
        assert runner.wait(timeout=20) == 41


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
)
def test_the_exit_code_is_that_of_the_command(command: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "/bin/sh", "-c", command], cwd=REPOSITORY, check=False
    )
    assert done.returncode == code


def test_until_gives_up_in_time() -> None:
    started = time.monotonic()
    assert not processes.until(lambda: False, within=0.1)
    assert time.monotonic() - started < 2
