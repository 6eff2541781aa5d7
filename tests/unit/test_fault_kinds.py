"""What becomes of a fault."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from worker.database.ledger import LedgerRace
from worker.processing.fault_kinds import FaultKind, classify, is_doubtful


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
        ("08000", FaultKind.OUTAGE),
        ("08001", FaultKind.OUTAGE),
        ("08003", FaultKind.OUTAGE),
        ("08006", FaultKind.OUTAGE),
        ("25006", FaultKind.OUTAGE),
        ("28000", FaultKind.OUTAGE),
        ("28P01", FaultKind.OUTAGE),
        ("3D000", FaultKind.OUTAGE),
        ("53100", FaultKind.OUTAGE),
        ("53200", FaultKind.OUTAGE),
        ("53300", FaultKind.OUTAGE),
        ("57P01", FaultKind.OUTAGE),
        ("57P02", FaultKind.OUTAGE),
        ("57P03", FaultKind.OUTAGE),
        ("58030", FaultKind.OUTAGE),
        ("57014", FaultKind.TRANSIENT),
        ("25P03", FaultKind.TRANSIENT),
        ("25P02", FaultKind.TRANSIENT),
        ("40001", FaultKind.CONTENTION),
        ("40P01", FaultKind.CONTENTION),
        ("55000", FaultKind.OUTAGE),
        ("55P03", FaultKind.CONTENTION),
        ("42P01", FaultKind.OUTAGE),
        ("XX000", FaultKind.TRANSIENT),
        ("22001", FaultKind.PERMANENT),
        ("22003", FaultKind.PERMANENT),
        ("22012", FaultKind.PERMANENT),
        ("22021", FaultKind.PERMANENT),
        ("44000", FaultKind.PERMANENT),
        ("54000", FaultKind.PERMANENT),
        ("P0001", FaultKind.PERMANENT),
        ("42501", FaultKind.OUTAGE),
        ("23502", FaultKind.PERMANENT),
        ("23505", FaultKind.PERMANENT),
        (None, FaultKind.OUTAGE),
        ("", FaultKind.OUTAGE),
    ],
)
def test_a_fault_is_known_by_its_sqlstate(code: str | None, kind: FaultKind) -> None:
    assert classify(fault(code)) is kind


@pytest.mark.parametrize("code", ["40001", "23505", "22001", "08006", None])
def test_a_connection_that_broke_is_an_outage_whatever_was_said(code: str | None) -> None:
    assert classify(fault(code, broken=True)) is FaultKind.OUTAGE


def test_a_violated_constraint_is_permanent() -> None:
    assert classify(fault("23999", kind=IntegrityError)) is FaultKind.PERMANENT


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ConnectionRefusedError(), FaultKind.OUTAGE),
        (TimeoutError(), FaultKind.OUTAGE),
        (PoolTimeout(), FaultKind.OUTAGE),
        (LedgerRace(), FaultKind.TRANSIENT),
        (ValueError("a bug"), FaultKind.TRANSIENT),
        (KeyError("a bug"), FaultKind.TRANSIENT),
        (RecursionError(), FaultKind.TRANSIENT),
    ],
)
def test_other_faults_are_known_by_their_type(raised: Exception, kind: FaultKind) -> None:
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
