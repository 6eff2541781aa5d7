"""What becomes of a fault, and how long is waited."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.database.ledger import LedgerRace
from worker.retry import RECONNECT, Backoff, Kind, classify, is_doubtful


class Told(Exception):
    """What a server says, with its SQLSTATE."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("told")
        self.sqlstate = sqlstate


def fault(
    code: str | None, *, kind: type[DBAPIError] = OperationalError, broken: bool = False
) -> DBAPIError:
    return kind("SELECT 1", {}, Told(code), connection_invalidated=broken)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("08000", Kind.OUTAGE),
        ("08001", Kind.OUTAGE),
        ("08003", Kind.OUTAGE),
        ("08006", Kind.OUTAGE),
        ("25006", Kind.OUTAGE),
        ("28000", Kind.OUTAGE),
        ("28P01", Kind.OUTAGE),
        ("3D000", Kind.OUTAGE),
        ("53100", Kind.OUTAGE),
        ("53200", Kind.OUTAGE),
        ("53300", Kind.OUTAGE),
        ("57P01", Kind.OUTAGE),
        ("57P02", Kind.OUTAGE),
        ("57P03", Kind.OUTAGE),
        ("58030", Kind.OUTAGE),
        ("57014", Kind.TRANSIENT),
        ("25P03", Kind.TRANSIENT),
        ("25P02", Kind.TRANSIENT),
        ("40001", Kind.TRANSIENT),
        ("40P01", Kind.TRANSIENT),
        ("55P03", Kind.TRANSIENT),
        ("42P01", Kind.OUTAGE),
        ("XX000", Kind.TRANSIENT),
        ("22001", Kind.PERMANENT),
        ("22003", Kind.PERMANENT),
        ("22021", Kind.PERMANENT),
        ("23502", Kind.PERMANENT),
        ("23505", Kind.PERMANENT),
        (None, Kind.OUTAGE),
        ("", Kind.OUTAGE),
    ],
)
def test_a_fault_is_known_by_its_sqlstate(code: str | None, kind: Kind) -> None:
    assert classify(fault(code)) is kind


@pytest.mark.parametrize("code", ["40001", "23505", "22001", "08006", None])
def test_a_connection_that_broke_is_an_outage_whatever_was_said(code: str | None) -> None:
    assert classify(fault(code, broken=True)) is Kind.OUTAGE


def test_a_violated_constraint_is_permanent() -> None:
    assert classify(fault("23999", kind=IntegrityError)) is Kind.PERMANENT


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ConnectionRefusedError(), Kind.OUTAGE),
        (TimeoutError(), Kind.OUTAGE),
        (PoolTimeout(), Kind.OUTAGE),
        (LedgerRace(), Kind.TRANSIENT),
        (ValueError("a bug"), Kind.TRANSIENT),
        (KeyError("a bug"), Kind.TRANSIENT),
        (RecursionError(), Kind.TRANSIENT),
    ],
)
def test_other_faults_are_known_by_their_type(raised: Exception, kind: Kind) -> None:
    assert classify(raised) is kind


@pytest.mark.parametrize(
    ("raised", "broken"),
    [
        (fault("57P01"), True),
        (fault("57P02"), True),
        (fault("57P03"), True),
        (fault("08006"), True),
        (fault(None), True),
        (fault("40001", broken=True), True),
        (fault("40001"), False),
        (fault("57014"), False),
        (fault("53100"), False),
        (fault("25006"), False),
        (ConnectionRefusedError(), False),
        (ValueError(), False),
    ],
)
def test_only_a_connection_that_had_been_open_can_break(raised: Exception, broken: bool) -> None:
    assert is_doubtful(raised) is broken


backoffs = st.builds(
    Backoff,
    base_seconds=st.floats(0.001, 100),
    cap_seconds=st.floats(0.001, 1_000),
)


@given(backoffs, st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_a_wait_lies_between_nothing_and_its_bound(
    backoff: Backoff, attempt: int, random: Random
) -> None:
    wait = backoff.delay(attempt, random=random)

    assert 0 <= wait <= backoff.cap_seconds
    if attempt <= 60:
        assert wait <= backoff.base_seconds * 2 ** (attempt - 1)


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(Random):
    def uniform(self, a: float, b: float) -> float:
        return a


@given(backoffs, st.integers(1, 100))
def test_bounds_double_until_the_cap_and_jitter_is_full(backoff: Backoff, attempt: int) -> None:
    bound = backoff.delay(attempt, random=Highest())
    following = backoff.delay(attempt + 1, random=Highest())

    assert following == pytest.approx(min(2 * bound, backoff.cap_seconds))
    assert backoff.delay(attempt, random=Lowest()) == 0


def test_a_server_is_reached_again_within_ten_seconds_of_its_return() -> None:
    assert max(RECONNECT.delay(attempt, random=Highest()) for attempt in range(1, 1_000)) <= 5
