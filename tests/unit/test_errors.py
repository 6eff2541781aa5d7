"""Errors end a command line with a code of their own; refusals carry theirs to the sender."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.fakes import make_codec
from worker.core.errors import (
    CommandRefused,
    Conflict,
    Forbidden,
    IdReused,
    Misconfigured,
    NotFound,
    Refusal,
    TimedOut,
    Unreachable,
    VersionMismatch,
    WorkerError,
)
from worker.core.messages import Problem


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkerError, 1),
        (Misconfigured, 2),
        (CommandRefused, 3),
        (Unreachable, 4),
        (TimedOut, 5),
    ],
)
def test_each_error_has_its_exit_code(error: type[WorkerError], code: int) -> None:
    assert issubclass(error, WorkerError)
    assert error("why").exit_code == code
    assert str(error("why")) == "why"


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (NotFound, "not_found"),
        (Conflict, "conflict"),
        (VersionMismatch, "version_mismatch"),
        (IdReused, "id_reused"),
        (Forbidden, "forbidden"),
    ],
)
def test_each_refusal_has_its_code(refusal: type[Refusal], code: str) -> None:
    raised = refusal("why", pointer="/data/email")

    assert refusal.code == code
    assert (str(raised), raised.detail, raised.pointer) == ("why", "why", "/data/email")
    assert refusal("why").pointer == ""


def test_a_refusal_is_no_error_of_the_worker() -> None:
    assert not issubclass(Refusal, WorkerError)


def test_every_error_says_what_it_means() -> None:
    kinds = [WorkerError, Refusal, *WorkerError.__subclasses__(), *Refusal.__subclasses__()]

    assert all(kind.__doc__ for kind in kinds if kind.__module__.startswith("worker."))


def test_every_refusal_of_ours_can_be_told() -> None:
    for refusal in (NotFound, Conflict, VersionMismatch, IdReused):
        assert make_codec().problem_data(Problem(refusal.code, "why"))["title"]


def test_a_refusal_of_ones_own_can_be_told_too() -> None:
    class OutOfStock(Refusal):
        code = "out_of_stock"

    assert make_codec().problem_data(Problem(OutOfStock.code, "none left"))["title"]


@pytest.mark.parametrize("module", ["worker", "worker.core.errors", "worker.settings.settings"])
def test_importing_the_outer_modules_loads_neither_broker_nor_database(module: str) -> None:
    look = f"import sys, {module}; print([m for m in ('aiormq', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", look], capture_output=True, text=True, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("[]", "")
