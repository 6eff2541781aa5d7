"""The book of a chaos run: what is written is read, whatever became of the writers."""

from __future__ import annotations

from pathlib import Path

from worker.testing.journal import (
    Confirm,
    FaultPeriod,
    Journal,
    JournalWriter,
    Ledger,
    ObservedEvent,
    PublishAttempt,
    SetAside,
    Stock,
    StoredRow,
    Waiting,
)

EVENT = ObservedEvent("c1", "e1", "user.created", "user/1", None, '{"id": 1}', "d1", "m1", 2.5)


def test_each_kind_of_entry_is_read_as_it_was_written(tmp_path: Path) -> None:
    book = Journal(
        attempts=(
            PublishAttempt("c1", "user.create", 1.0, "ann"),
            PublishAttempt("c1", "user.create", 1.5),
        ),
        confirms=(Confirm("c1", 2.0),),
        events=(EVENT,),
        letters=(SetAside("c2", "e2", "invalid", 9.0),),
        waiting=(Waiting(None),),
        rows=(StoredRow("user/1", 1, '{"id": 1, "username": "änn"}'),),
        ledger=(Ledger("c1", "done", "e1", "user.created", "d1"),),
        faults=(FaultPeriod("kill -9", 3.0, 4.0),),
        stock=Stock(["user"], 9.5),
    )
    with JournalWriter(tmp_path / "book", "publisher") as pen:
        pen.write(*book.attempts, *book.confirms)
    with JournalWriter(tmp_path / "book", "observer") as pen:
        pen.write(*book.events)
    with JournalWriter(tmp_path / "book", "stock") as pen:
        pen.write(*book.letters, *book.waiting, *book.rows, *book.ledger, *book.faults)
        assert book.stock is not None
        pen.write(book.stock)
    assert Journal.read(tmp_path / "book") == book


def test_an_open_book_can_be_read(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, "observer") as pen:
        pen.write(EVENT)
        assert Journal.read(tmp_path).events == (EVENT,)
        pen.write(EVENT)
        assert Journal.read(tmp_path).events == (EVENT, EVENT)


def test_a_killed_writer_spoils_its_last_line_and_no_other(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, "observer") as pen:
        pen.write(EVENT)
    path = tmp_path / "observer.ndjson"
    path.write_bytes(path.read_bytes() + b'{"kind": "event", "comma')
    with JournalWriter(tmp_path, "observer") as pen:
        pen.write(EVENT)
    assert Journal.read(tmp_path).events == (EVENT, EVENT)
