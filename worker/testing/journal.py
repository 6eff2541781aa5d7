"""The book: what was sent, what came, and what there was at the end. Append-only, on disk.

A book is a directory. Every writer has a file of its own in it, one JSON object a line, so that
writers never wait for each other and a killed one spoils at most its last line. Times (`at`) are
seconds on the machine's monotonic clock, which all its processes share and nobody can put back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class PublishAttempt:
    """A publisher handed a command to the broker; it does so again until it is confirmed."""

    kind: ClassVar[str] = "attempt"
    id: str
    type: str
    at: float
    key: str | None = None
    """Commands with the same key are to take effect in the order sent; none if nothing was said."""
    publisher: str = "publisher"


@dataclass(frozen=True, slots=True)
class Confirm:
    """The broker confirmed a command: from now on it must not be lost."""

    kind: ClassVar[str] = "confirm"
    id: str
    at: float


@dataclass(frozen=True, slots=True)
class ObservedEvent:
    """An event came."""

    kind: ClassVar[str] = "event"
    command_id: str | None
    event_id: str
    type: str
    """`user.created`, `user.create.rejected`, `user.create.failed`."""
    subject: str | None
    """The row that it is about, `user/42`."""
    code: str | None
    """Why not, where it is no success."""
    data: str
    """The event's data, as JSON text."""
    digest: str
    """Of the whole body."""
    message_id: str | None
    """Unique for each time that it was published: tells a repetition from a second delivery."""
    at: float

    @property
    def succeeded(self) -> bool:
        """Whether the command took effect."""
        return not self.type.endswith((".rejected", ".failed"))


@dataclass(frozen=True, slots=True)
class SetAside:
    """A dead letter lay in its queue at the end."""

    kind: ClassVar[str] = "letter"
    command_id: str | None
    event_id: str | None
    code: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A command was still in its queue at the end."""

    kind: ClassVar[str] = "waiting"
    command_id: str | None


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row was in its table at the end."""

    kind: ClassVar[str] = "row"
    subject: str
    """As in events, `user/42`."""
    version: int
    values: str
    """All its columns, as JSON text."""


@dataclass(frozen=True, slots=True)
class Seed(StoredRow):
    """A row was in its table before the first command."""

    kind: ClassVar[str] = "seed"


@dataclass(frozen=True, slots=True)
class Ledger:
    """A row was in the ledger at the end."""

    kind: ClassVar[str] = "ledger"
    command_id: str
    outcome: str
    """`done`, `refused` or `dead_lettered`."""
    event_id: str
    event_type: str
    digest: str
    """Of the body of its event."""


@dataclass(frozen=True, slots=True)
class FaultPeriod:
    """Something was broken, and mended again; the same time twice for a blow such as a kill."""

    kind: ClassVar[str] = "fault"
    name: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Stock:
    """At the end stock was taken of these entities' tables, the ledger and the queues."""

    kind: ClassVar[str] = "stock"
    entities: list[str]
    at: float


Entry = (
    PublishAttempt
    | Confirm
    | ObservedEvent
    | SetAside
    | Waiting
    | StoredRow
    | Seed
    | Ledger
    | FaultPeriod
    | Stock
)
_KINDS: dict[str, type[Entry]] = {
    each.kind: each
    for each in (
        PublishAttempt,
        Confirm,
        ObservedEvent,
        SetAside,
        Waiting,
        StoredRow,
        Seed,
        Ledger,
        FaultPeriod,
        Stock,
    )
}


class JournalWriter:
    """Writes into a book, under the name of its writer; what was written is there to be read."""

    def __init__(self, book: Path, writer: str) -> None:
        book.mkdir(parents=True, exist_ok=True)
        self._file = (book / f"{writer}.ndjson").open("ab+")
        # A line that a killed writer has left unfinished must not spoil the next one.
        if self._file.tell():
            self._file.seek(-1, 2)
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def write(self, *entries: Entry) -> None:
        """Append all of them at once."""
        lines = (json.dumps({"kind": each.kind, **asdict(each)}) + "\n" for each in entries)
        self._file.write("".join(lines).encode())
        self._file.flush()

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Journal:
    """All entries of a book by their kind, each kind in the order written."""

    attempts: tuple[PublishAttempt, ...] = ()
    confirms: tuple[Confirm, ...] = ()
    events: tuple[ObservedEvent, ...] = ()
    letters: tuple[SetAside, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    seeds: tuple[Seed, ...] = ()
    rows: tuple[StoredRow, ...] = ()
    ledger: tuple[Ledger, ...] = ()
    faults: tuple[FaultPeriod, ...] = ()
    stock: Stock | None = None

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        """Sort entries by their kind."""
        by_kind: dict[type[Entry], list[Any]] = {kind: [] for kind in _KINDS.values()}
        for entry in entries:
            by_kind[type(entry)].append(entry)
        return cls(
            attempts=tuple(by_kind[PublishAttempt]),
            confirms=tuple(by_kind[Confirm]),
            events=tuple(by_kind[ObservedEvent]),
            letters=tuple(by_kind[SetAside]),
            waiting=tuple(by_kind[Waiting]),
            seeds=tuple(by_kind[Seed]),
            rows=tuple(by_kind[StoredRow]),
            ledger=tuple(by_kind[Ledger]),
            faults=tuple(by_kind[FaultPeriod]),
            stock=by_kind[Stock][-1] if by_kind[Stock] else None,
        )

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The book as it stands on disk, be it still written or not."""
        return cls.of(_entries(directory))


def _entries(directory: Path) -> Iterator[Entry]:
    for path in sorted(directory.glob("*.ndjson")):
        with path.open("rb") as lines:
            for line in lines:
                try:
                    found = json.loads(line)
                except ValueError:  # left unfinished by a writer that was killed
                    continue
                yield _KINDS[found.pop("kind")](**found)


def digest(body: bytes) -> str:
    """What two bodies have in common if, and only if, they are the same."""
    return hashlib.sha256(body).hexdigest()
