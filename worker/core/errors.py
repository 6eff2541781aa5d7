"""Everything the worker raises on purpose.

    WorkerError                    ends a command line, with an exit code and one clear sentence
    ├── Misconfigured         2    a setting, the topology or the schema is not as it must be
    ├── CommandRefused        3    `publish --wait` got a refusal
    ├── Unreachable           4    the broker or the database cannot be reached
    └── TimedOut              5    an answer did not come in time

    Refusal                        the business says no: an answer, never logged as an error
    ├── NotFound
    ├── Conflict
    ├── VersionMismatch
    ├── IdReused
    └── Forbidden

Handlers raise refusals; all other exceptions out of a handler are faults, and `fault_kinds.py` says
what becomes of them.
"""

from typing import ClassVar


class WorkerError(Exception):
    """A sentence for people: what happened, why, and what mends it."""

    exit_code: ClassVar[int] = 1


class Misconfigured(WorkerError):
    """A setting, the topology or the database schema is not as it must be."""

    exit_code = 2


class CommandRefused(WorkerError):
    """The command that was waited for has been refused."""

    exit_code = 3


class Unreachable(WorkerError):
    """The broker or the database cannot be reached."""

    exit_code = 4


class TimedOut(WorkerError):
    """What was waited for did not come in time."""

    exit_code = 5


class Refusal(Exception):
    """The command cannot be carried out as things stand, and trying again would not help.

    `detail` is for the sender, a stranger: it says what to mend. `pointer` is the JSON pointer
    (RFC 6901) of the member at fault, or empty for the whole command.
    """

    code: ClassVar[str] = "refused"

    def __init__(self, detail: str, *, pointer: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer


class NotFound(Refusal):
    """What the command names does not exist."""

    code = "not_found"


class Conflict(Refusal):
    """The command contradicts what is there: a name that is taken, a row still in use."""

    code = "conflict"


class VersionMismatch(Refusal):
    """The row is not at the version that the sender expected."""

    code = "version_mismatch"


class IdReused(Refusal):
    """The command's id was used before, for another command."""

    code = "id_reused"


class Forbidden(Refusal):
    """Its sender may not send this command; nothing of it was looked at."""

    code = "forbidden"


def first_words(error: BaseException) -> str:
    """The first line of what an exception says; never fails, whatever its own code does."""
    try:
        return next(iter(str(error).strip().splitlines()), "")[:300]
    except BaseException:
        return "(its own words cannot be had)"


def words(error: BaseException) -> str:
    """An exception's type and first line for a log; never fails either."""
    first = first_words(error)
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
