"""What the server, or the way to it, has said, and one sentence for what is to be done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.core.errors import Misconfigured, Unreachable
from worker.core.violations import Violation
from worker.settings.tls import mismatch


def sqlstate(error: BaseException | None) -> str | None:
    """The server's code for an error, or for what has caused it; `None` where it said nothing."""
    while error is not None:
        code: Any = getattr(error, "sqlstate", None)
        if code:
            return str(code)
        error = getattr(error, "orig", None) or error.__cause__
    return None


def lacks_room(error: BaseException) -> bool:
    """Whether the server complains of its disk or memory, which shows only where much is written.

    Not of its connections (53300), nor of a limit that somebody has set (53400).
    """
    code = sqlstate(error) or ""
    return code[:2] in ("53", "58") and code not in ("53300", "53400")


def violation_of(fault: BaseException | None) -> Violation | None:
    """The rule of the database that a statement has broken, where that is what has happened.

    A rule of the data: a constraint, a policy, a trigger that objects, a value that does not fit.
    """
    if not isinstance(fault, DBAPIError):
        return None
    told = getattr(fault.orig, "__cause__", None) or fault.orig
    code = sqlstate(fault) or (_NO_CODE if _is_unfit(told) else "")
    is_policy = getattr(told, "server_source_function", None) == "ExecWithCheckOptions"
    if code[:2] != "23" and code not in _RULES and not (code == "42501" and is_policy):
        return None
    names = ("constraint_name", "table_name", "schema_name", "column_name")
    return Violation(code, *(getattr(told, name, None) for name in names))


UNFIT = frozenset(
    {
        _NO_CODE := "22000",  # data_exception: here, what the driver itself cannot write
        "22001",  # string_data_right_truncation: too long
        "22003",  # numeric_value_out_of_range
        "22007",  # invalid_datetime_format
        "22008",  # datetime_field_overflow
        "22021",  # character_not_in_repertoire
        "22P02",  # invalid_text_representation
        "22P03",  # invalid_binary_representation
        "22P05",  # untranslatable_character: the database has another encoding
        "54000",  # program_limit_exceeded: longer than an index can hold
    }
)
"""A value that its column cannot hold. The rest of class 22 is a computation that failed."""
_RULES = UNFIT | {
    "44000",  # with_check_option_violation
    "P0001",  # raise_exception: a trigger's own words
}


def _is_unfit(told: object) -> bool:
    """Whether the driver itself refused a value: it says so in no code, and asked no server."""
    return isinstance(told, ValueError)


def first_line(error: BaseException) -> str:
    """What has happened, in the driver's words and in one line."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def explain(error: BaseException, engine: AsyncEngine) -> Unreachable | Misconfigured:
    """One sentence for a database that could not be used, without its password."""
    where = make_url(engine.url).render_as_string(hide_password=True)
    if (reason := mismatch(error)) is not None:
        return Misconfigured(
            f"PostgreSQL cannot be reached by TLS ({where}): {reason}. Look at port and "
            "sslmode in WORKER_DATABASE__URL and at WORKER_DATABASE__TLS_CA_FILE, or mend its "
            "certificate"
        )
    code = sqlstate(error)
    match code:
        case "28P01" | "28000":
            return Misconfigured(
                f"PostgreSQL refuses the account or its password ({where}): {first_line(error)}. "
                "Set WORKER_DATABASE__URL to an account that may log in"
            )
        case "3D000":
            return Misconfigured(
                f"PostgreSQL has no such database ({where}). "
                "Create it with `createdb`, or set WORKER_DATABASE__URL to one that exists"
            )
        case "42P01":
            return Misconfigured(
                f"The database has no such table ({where}): {first_line(error)}. "
                "Bring the schema there with: worker migrate"
            )
        case "42501":
            return Misconfigured(
                f"The database account lacks a right ({where}): {first_line(error)}. "
                "Grant it, or set WORKER_DATABASE__URL to an account that has it"
            )
    return Unreachable(
        f"PostgreSQL cannot be reached ({where}): {first_line(error)}. "
        "Start it, or set WORKER_DATABASE__URL"
    )
