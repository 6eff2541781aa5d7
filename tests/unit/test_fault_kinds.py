"""What becomes of a fault."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.database.ledger import LedgerRace
from worker.processing.fault_kinds import Kind, classify, is_doubtful


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
        ("40001", Kind.CONTENTION),
        ("40P01", Kind.CONTENTION),
        ("55000", Kind.OUTAGE),
        ("55P03", Kind.CONTENTION),
        ("42P01", Kind.OUTAGE),
        ("XX000", Kind.TRANSIENT),
        ("22001", Kind.PERMANENT),
        ("22003", Kind.PERMANENT),
        ("22012", Kind.PERMANENT),
        ("22021", Kind.PERMANENT),
        ("44000", Kind.PERMANENT),
        ("54000", Kind.PERMANENT),
        ("P0001", Kind.PERMANENT),
        ("42501", Kind.OUTAGE),
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
        (fault("25006", broken=True), False),
        (ConnectionRefusedError(), False),
        (ValueError(), False),
    ],
)
def test_only_a_connection_that_had_been_open_can_break(raised: Exception, broken: bool) -> None:
    assert is_doubtful(raised) is broken
