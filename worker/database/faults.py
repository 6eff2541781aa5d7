"""What the server, or the way to it, has said."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DBAPIError


def sqlstate(error: BaseException | None) -> str | None:
    """The server's code for an error, or for what has caused it; `None` where it said nothing."""
    while error is not None:
        code: Any = getattr(error, "sqlstate", None)
        if code:
            return str(code)
        error = getattr(error, "orig", None) or error.__cause__
    return None


def first_line(error: BaseException) -> str:
    """What has happened, in the driver's words and in one line."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
