"""Outcomes of groups: what one command does never changes what becomes of another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DataError, IntegrityError, OperationalError

from tests.support.fakes import REGISTRY, delivery, done, make_codec, make_job
from worker.core.backoff import Backoff
from worker.core.errors import Refusal
from worker.core.messages import (
    REDRIVE_HEADER,
    Blocked,
    Command,
    DeadLetter,
    Done,
    Job,
    Outcome,
    Refused,
    ResultEvent,
    Retry,
)
from worker.core.registry import Registry
from worker.database import ledger
from worker.database.engine import Sessions
from worker.database.ledger import Entry, LedgerRace
from worker.database.pool.pool import WHILE_CONNECTING
from worker.entities.user import USER
from worker.processing import failures, processor
from worker.processing.failures import MAX_LOSSES, SUSPECT_LOSSES
from worker.processing.processor import Processor, _distinct

CODEC = make_codec()


class Told(Exception):
    """What a server says, with its SQLSTATE."""

    def __init__(self, sqlstate: str | None, constraint: str | None = None) -> None:
        super().__init__("told")
        self.sqlstate = sqlstate
        self.__cause__ = cast(Any, type("Cause", (Exception,), {"constraint_name": constraint})())


def server_says(code: str | None) -> OperationalError:
    return OperationalError("SELECT 1", {}, Told(code))


def violated(constraint: str) -> IntegrityError:
    return IntegrityError("INSERT", {}, Told("23505", constraint))


Behaviour = Callable[[], Exception | None]


def fine() -> None:
    return None


def broken() -> Exception:
    return ValueError("a bug")


def outage() -> Exception:
    return ConnectionRefusedError("away")


def cut() -> Exception:
    return server_says("57P01")


def raced() -> Exception:
    return LedgerRace()


def hopeless() -> Exception:
    return DataError("INSERT", {}, Told("22012"))


class Ledger:
    """Notes what is remembered in transactions of their own; fails as it is told."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.known: dict[str, Entry] = {}
        self.fault: Exception | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Ledger]:
        if self.fault is not None:
            raise self.fault
        yield self


class Rig(Processor):
    """A processor whose transactions fail as their commands say, all of one together."""

    def __init__(
        self, behaviours: dict[int, Behaviour] | None = None, *, max_attempts: int = 3
    ) -> None:
        self.ledger = Ledger()
        super().__init__(
            cast(Sessions, self.ledger),
            REGISTRY,
            CODEC,
            max_attempts=max_attempts,
            max_deliveries=10,
            backoff=Backoff(0.5, 1),
            budget_seconds=1,
            is_up=self.is_up,
        )
        self.behaviours = behaviours or {}
        self.transactions: list[list[Job]] = []
        self.room = 1_000_000
        self.up = False
        self.asked: list[BaseException] = []

    async def is_up(self, fault: BaseException) -> bool:
        """What the database says of itself."""
        self.asked.append(fault)
        return self.up

    async def _transact(self, jobs: Sequence[Job], *, briefly: bool = False) -> list[Outcome]:
        self.transactions.append(list(jobs))
        ids = [job.envelope.id for job in jobs if job.envelope.id is not None]
        assert len(set(ids)) == len(ids), "one id twice in a transaction"
        taken = jobs[: self.room]
        for job in taken:
            fault = self.behaviours.get(id(job), fine)()
            if fault is not None:
                raise fault
        return [done(job) for job in taken]


@pytest.fixture(autouse=True)
def fake_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    async def record(session: Any, entries: Sequence[Entry], *, again: Sequence[str]) -> None:
        if any(entry.command_id in session.known for entry in entries) and not again:
            raise LedgerRace
        session.entries += entries

    async def lookup(session: Any, command_ids: Sequence[str]) -> dict[str, Entry]:
        return {id_: session.known[id_] for id_ in command_ids if id_ in session.known}

    monkeypatch.setattr(ledger, "record", record)
    monkeypatch.setattr(ledger, "lookup", lookup)


def kinds(outcomes: Sequence[Outcome]) -> str:
    """Their initials: Done, Refused, deadLetter, reTry, Held, Away."""
    letters: dict[type, str] = {Done: "D", Refused: "R", DeadLetter: "L", Retry: "T", Blocked: "H"}
    return "".join(letters.get(type(outcome), "A") for outcome in outcomes)


async def run(jobs: Sequence[Job], *behaviours: Behaviour, **options: Any) -> tuple[str, Rig]:
    rig = Rig({id(job): each for job, each in zip(jobs, behaviours, strict=False)}, **options)
    return kinds(await rig.process(jobs)), rig


def jobs_of(keys: str) -> list[Job]:
    return [make_job(None if key == "-" else key) for key in keys]


async def test_what_goes_well_goes_in_one_transaction() -> None:
    outcomes, rig = await run(jobs_of("aabb-"))

    assert outcomes == "DDDDD"
    assert len(rig.transactions) == 1


async def test_no_jobs_have_no_outcomes() -> None:
    assert (await run([]))[0] == ""


async def test_a_bad_command_is_found_and_its_neighbours_are_done() -> None:
    outcomes, rig = await run(jobs_of("abcdefgh"), *[fine] * 5, broken)

    assert outcomes == "DDDDDTDD"
    assert len(rig.transactions) <= 8


async def test_a_failed_command_waits_and_later_ones_with_its_key_are_held() -> None:
    outcomes, _ = await run(jobs_of("babaca"), fine, broken)

    assert outcomes == "DTDHDH"


async def test_commands_without_key_are_never_held() -> None:
    outcomes, _ = await run(jobs_of("----"), broken, fine, broken)

    assert outcomes == "TDTD"


async def test_attempts_are_counted_and_end_in_a_dead_letter() -> None:
    (job,) = jobs_of("a")
    rig = Rig({id(job): broken}, max_attempts=3)
    ends = [(await rig.process([job]))[0] for _ in range(3)]

    assert kinds(ends) == "TTL"
    last = ends[-1]
    assert isinstance(last, DeadLetter)
    assert (last.code, last.attempts, last.answer.type) == ("failed", 3, "user.create.failed")
    assert "a bug" not in last.answer.body.decode()
    waits = [end.delay_seconds for end in ends if isinstance(end, Retry)]
    assert all(0 <= wait <= bound for wait, bound in zip(waits, (0.5, 1), strict=True))


async def test_a_failure_within_a_group_is_no_attempt() -> None:
    jobs = jobs_of("abc")
    await run(jobs, fine, broken)

    assert [job.failures for job in jobs] == [0, 1, 0]


async def test_what_cannot_succeed_is_given_up_at_once_and_remembered() -> None:
    job = make_job("a", id_="x")
    outcomes, rig = await run([job, make_job("a", id_="y")], hopeless)

    assert outcomes == "LD"
    assert [(entry.command_id, entry.outcome) for entry in rig.ledger.entries] == [
        ("x", "dead_lettered")
    ]


async def test_a_violated_constraint_that_means_something_is_a_refusal() -> None:
    item = CODEC.decode(
        delivery({"id": "u", "type": "user.create", "data": {"username": "a", "email": "a@b.de"}})
    )
    assert isinstance(item, Command)
    job = Job(item)
    outcomes, rig = await run([make_job("z"), job], fine, lambda: violated("uq_users_username"))

    assert outcomes == "DR"
    assert [entry.outcome for entry in rig.ledger.entries] == ["refused"]


async def test_an_outage_leaves_everything_undecided_and_counts_no_attempt() -> None:
    jobs = jobs_of("abcd")
    outcomes, rig = await run(jobs, fine, fine, outage)

    assert outcomes == "AAAA"
    assert len(rig.transactions) == 1
    assert not any(job.failures or job.losses for job in jobs)


@pytest.mark.parametrize("code", ["53400", "53100", "57014", "08006", "57P01", "25006", None])
async def test_an_outage_is_one_only_if_the_database_says_so(code: str | None) -> None:
    jobs = jobs_of("abcdefgh")
    rig = Rig({id(jobs[5]): lambda: server_says(code)})
    rig.up = True
    outcomes = kinds(await rig.process(jobs))

    assert outcomes == "DDDDDTDD"
    ends = outcomes[5]
    for _ in range(MAX_LOSSES):
        if ends[-1] != "L":
            ends += kinds(await rig.process([jobs[5]]))
    assert ends[-1] == "L"


@pytest.mark.parametrize("up", [True, False])
async def test_who_gets_no_connection_waits_whatever_the_database_says(up: bool) -> None:
    def refused() -> Exception:
        error = server_says("53300")
        error.add_note(WHILE_CONNECTING)
        return error

    jobs = jobs_of("abc")
    rig = Rig({id(jobs[1]): refused})
    rig.up = up

    assert {kinds(await rig.process(jobs)) for _ in range(2 * MAX_LOSSES)} == {"AAA"}
    assert not any(job.failures or job.losses for job in jobs)


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03"])
async def test_waiting_for_others_is_no_attempt_until_it_has_lasted(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    async def nobody_froze(*_: object, **__: object) -> None: ...

    monkeypatch.setattr(failures, "monotonic", lambda: now)
    monkeypatch.setattr(processor, "end_frozen", nobody_froze)
    (job,) = jobs_of("a")
    rig = Rig({id(job): lambda: server_says(code)}, max_attempts=3)
    waited = "".join([kinds(await rig.process([job])) for _ in range(100)])
    failures_meanwhile, now = job.failures, 300.0
    ends = "".join([kinds(await rig.process([job])) for _ in range(3)])

    assert (waited, failures_meanwhile, ends) == ("T" * 100, 0, "TTL")


async def test_what_explains_a_constraint_may_fail() -> None:
    def explain(*_: object) -> Refusal:
        raise SystemExit(1)

    jobs = [make_job("a", id_="x"), make_job("b", id_="y")]
    rig = Rig({id(jobs[0]): lambda: violated("uq_users_username")})
    rig._failures._registry = Registry([replace(USER, explain=explain)])

    assert kinds(await rig.process(jobs)) == "LD"


async def test_after_a_loss_nothing_runs() -> None:
    jobs = [*jobs_of("abcd"), make_job("e", id_="x"), make_job("e", id_="x"), make_job("f")]
    ran = Counter[int]()

    def note(job: Job) -> Behaviour:
        def behave() -> Exception | None:
            ran[id(job)] += 1
            return None

        return behave

    rig = Rig({id(job): note(job) for job in jobs})
    rig.behaviours[id(jobs[4])] = outage
    assert kinds(await rig.process(jobs)) == "AAAAAAA"
    assert len(rig.transactions) == 1
    assert not ran[id(jobs[5])]


async def test_a_broken_connection_is_held_against_all_that_shared_it() -> None:
    jobs = jobs_of("abc")
    outcomes, _ = await run(jobs, fine, cut)

    assert outcomes == "AAA"
    assert [job.losses for job in jobs] == [1, 1, 1]


async def test_a_suspect_is_isolated_so_that_the_innocent_get_by() -> None:
    jobs = jobs_of("abcdefgh")
    rig = Rig({id(jobs[5]): cut})
    for _ in range(SUSPECT_LOSSES):
        assert set(kinds(await rig.process(jobs))) == {"A"}
    outcomes = kinds(await rig.process(jobs))

    assert outcomes.startswith("DDDDD")
    assert outcomes[5] in "AT"


async def test_a_command_that_always_breaks_its_connection_is_given_up() -> None:
    (job,) = jobs_of("a")
    rig = Rig({id(job): cut})
    outcomes = "".join([kinds(await rig.process([job])) for _ in range(MAX_LOSSES)])

    assert outcomes[-1] == "L"
    assert "L" not in outcomes[:-1]


async def test_a_command_whose_handler_always_raises_an_os_error_is_given_up() -> None:
    """Else it would be tried for ever, and everything behind it would wait as long."""
    (job,) = jobs_of("a")
    rig = Rig({id(job): lambda: FileNotFoundError("a template of the handler's own")})
    outcomes = "".join([kinds(await rig.process([job])) for _ in range(3 * MAX_LOSSES)])

    assert "L" in outcomes


async def test_a_command_that_ended_its_process_too_often_is_given_up_unrun() -> None:
    job = make_job("a", id_="x", delivery_count=10)
    outcomes, rig = await run([job])

    assert outcomes == "L"
    assert rig.transactions == []
    assert [entry.outcome for entry in rig.ledger.entries] == ["dead_lettered"]


async def test_a_command_that_was_done_before_its_process_ended_still_gets_its_event() -> None:
    """Its entry stands in the ledger: it is not given up, nor asked about for ever."""
    job = make_job("a", id_="x", delivery_count=10)
    rig = Rig()
    rig.ledger.fault = LedgerRace()
    outcomes = "".join([kinds(await rig.process([job])) for _ in range(5)])

    assert "D" in outcomes


@pytest.mark.parametrize("redriven", [False, True])
async def test_a_dead_letter_keeps_its_answer_unless_it_was_sent_back_on_purpose(
    redriven: bool,
) -> None:
    job = make_job("a", id_="x", delivery_count=10)
    if redriven:
        headers = {REDRIVE_HEADER: True}
        came = replace(job.envelope.delivery, headers=headers)
        envelope = replace(job.envelope, delivery=came)
        assert isinstance(job.item, Command)
        job = Job(replace(job.item, envelope=envelope))
    rig = Rig()
    rig.ledger.known["x"] = Entry("x", b"", "dead_lettered", ResultEvent("e", "t", b"{}"))
    outcomes = kinds(await rig.process([job]))

    # Given up anew, or run, which finds its answer.
    assert (outcomes, len(rig.transactions)) == (("L", 0) if redriven else ("D", 1))


async def test_a_race_for_the_ledger_is_no_attempt_and_is_tried_again_at_once() -> None:
    jobs = jobs_of("aa")
    rig = Rig({id(jobs[0]): raced})
    outcomes = await rig.process(jobs)

    assert kinds(outcomes) == "TH"
    assert isinstance(outcomes[0], Retry)
    assert outcomes[0].delay_seconds == 0
    assert jobs[0].failures == 0


async def test_a_race_while_a_failure_is_remembered_holds_its_key_as_well() -> None:
    jobs = [make_job("a", id_="x"), make_job("a", id_="y"), make_job("b", id_="z")]
    rig = Rig({id(jobs[0]): hopeless})
    rig.ledger.fault = LedgerRace()

    assert kinds(await rig.process(jobs)) == "THD"


async def test_a_race_while_a_convicted_command_is_remembered_holds_its_key_as_well() -> None:
    jobs = [make_job("a", id_="x"), make_job("a", id_="y")]
    jobs[0].losses = MAX_LOSSES - 1
    rig = Rig({id(jobs[0]): cut})
    rig.ledger.fault = LedgerRace()

    assert kinds(await rig.process(jobs)) == "TH"


async def test_an_outage_while_a_failure_is_remembered_leaves_it_undecided() -> None:
    jobs = [make_job("a", id_="x"), make_job("a", id_="y")]
    rig = Rig({id(jobs[0]): hopeless})
    rig.ledger.fault = server_says("57P03")

    assert kinds(await rig.process(jobs)) == "AA"


async def test_a_failure_that_can_never_be_remembered_is_not_tried_for_ever() -> None:
    """As with an id that the database's encoding cannot hold."""
    job = make_job("a", id_="x")
    rig = Rig({id(job): hopeless})
    rig.ledger.fault = hopeless()
    outcomes = "".join([kinds(await rig.process([job])) for _ in range(50)])

    assert "L" in outcomes


async def test_a_transaction_whose_time_is_up_is_followed_by_another() -> None:
    jobs = jobs_of("abcdefg")
    rig = Rig()
    rig.room = 3
    assert kinds(await rig.process(jobs)) == "D" * 7
    assert [len(each) for each in rig.transactions] == [7, 4, 1]


async def test_the_largest_group_of_the_slowest_commands_is_carried_out() -> None:
    rig = Rig()
    rig.room = 1
    try:
        outcomes = kinds(await rig.process([make_job(str(number)) for number in range(1_000)]))
    except RecursionError:  # not shown whole: its thousand frames are too much for the report
        outcomes = "RecursionError"

    assert outcomes == "D" * 1_000


async def test_a_command_whose_time_is_up_is_still_held_by_its_key() -> None:
    jobs = jobs_of("abab")
    rig = Rig({id(jobs[0]): broken})
    rig.room = 1

    assert kinds(await rig.process(jobs)) == "TDHD"


async def test_a_duplicate_comes_in_a_later_transaction() -> None:
    jobs = [make_job("a", id_=id_) for id_ in ("x", "y", "x", "x", None, None)]
    outcomes, rig = await run(jobs)

    assert outcomes == "D" * 6
    assert [len(each) for each in rig.transactions] == [2, 1, 3]


@pytest.mark.parametrize(
    ("ids", "first"),
    [("", 0), ("x", 1), ("xy", 2), ("xyx", 2), ("xx", 1), ("--", 2), ("x-x", 2), ("xyzy", 3)],
)
def test_distinct_takes_what_comes_before_the_first_duplicate(ids: str, first: int) -> None:
    jobs = [make_job("a", id_=None if id_ == "-" else id_) for id_ in ids]

    assert list(_distinct(jobs)) == jobs[:first]


async def test_cancelling_is_not_caught() -> None:
    class Hanging(Rig):
        async def _transact(self, jobs: Sequence[Job], *, briefly: bool = False) -> list[Outcome]:
            await asyncio.Event().wait()
            return []

    task = asyncio.create_task(Hanging().process(jobs_of("a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


BEHAVIOURS: dict[str, Behaviour] = {
    "fine": fine,
    "broken": broken,
    "hopeless": hopeless,
    "raced": raced,
    "refused": lambda: violated("uq_users_username"),
}


def expected(keys: Sequence[str | None], behaviours: Sequence[str]) -> str:
    """What becomes of each, were it alone, but for keys that wait."""
    ends = {"fine": "D", "broken": "T", "hopeless": "L", "raced": "T", "refused": "R"}
    outcomes, waiting = "", set()
    for key, behaviour in zip(keys, behaviours, strict=True):
        end = "H" if key in waiting else ends[behaviour]
        if end == "T" and key is not None:
            waiting.add(key)
        outcomes += end
    return outcomes


commands = st.lists(
    st.tuples(
        st.sampled_from([None, "a", "b", "c"]),
        st.sampled_from(["fine", "fine", "fine", *BEHAVIOURS]),
        st.sampled_from([None, "1", "2", "3"]),
    ),
    max_size=16,
)


@given(commands, st.integers(1, 6))
async def test_a_group_changes_no_outcome(
    given_commands: list[tuple[str | None, str, str | None]], room: int
) -> None:
    jobs = [make_job(key, id_=id_) for key, _, id_ in given_commands]
    names = [behaviour for _, behaviour, _ in given_commands]
    rig = Rig({id(job): BEHAVIOURS[name] for job, name in zip(jobs, names, strict=True)})
    rig.room = room
    outcomes = kinds(await rig.process(jobs))

    assert outcomes == expected([job.key for job in jobs], names)
    assert [job.failures for job in jobs] == [
        int(end == "L" or (end == "T" and name == "broken"))
        for end, name in zip(outcomes, names, strict=True)
    ]


@given(commands, st.integers(0, 15), st.sampled_from([outage, cut]))
async def test_a_loss_leaves_the_first_ones_and_nothing_behind_it_is_decided(
    given_commands: list[tuple[str | None, str, str | None]], where: int, loss: Behaviour
) -> None:
    jobs = [make_job(key, id_=id_) for key, _, id_ in given_commands]
    rig = Rig(
        {id(job): BEHAVIOURS[name] for job, (_, name, _) in zip(jobs, given_commands, strict=True)}
    )
    if where < len(jobs):
        rig.behaviours[id(jobs[where])] = loss
    outcomes = kinds(await rig.process(jobs))

    assert len(outcomes) == len(jobs)
    first = outcomes.find("A")
    if first >= 0:
        assert set(outcomes[first:]) <= {"A", "H"}
        assert first <= where
