"""Commands of the machine, behind one function that tests replace."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Finished:
    """How a command ended, with both its outputs as one text."""

    code: int
    output: str

    @property
    def ok(self) -> bool:
        """Whether it says of itself that it succeeded."""
        return self.code == 0


class Runner(Protocol):
    """Runs a command to its end."""

    def __call__(self, argv: Sequence[str], timeout: float) -> Finished:
        """Raise nothing: a command that is missing or too slow has simply failed."""
        ...


def run(argv: Sequence[str], timeout: float) -> Finished:
    """The real one."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finished(124, f"no answer within {timeout:.0f} s")
    except OSError as error:
        return Finished(127, str(error))
    return Finished(done.returncode, done.stdout)
