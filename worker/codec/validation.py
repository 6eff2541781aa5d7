"""What is wrong with a command, as its sender reads it: where, and in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import reduce
from operator import getitem
from typing import Any, cast

from pydantic import ValidationError

from worker.codec.strict_json import Path
from worker.core.messages import ErrorDetail, Problem
from worker.core.text import CONTROL, UNSTORABLE

MAX_FAULTS = 20
"""That one command is told of."""

UNPRINTABLE = re.compile(f"[{CONTROL}{UNSTORABLE}]")


def problem_of(code: str, faults: Sequence[ErrorDetail], untold: int) -> Problem:
    """The faults, and how many more there were, as one problem."""
    first, more = faults[0], len(faults) + untold - 1
    detail = f"{first.pointer} {first.detail}" if first.pointer else first.detail
    if more:
        detail += f" (and {more} more)"
    return Problem(code, detail, tuple(faults[:MAX_FAULTS]))


def pointer_to(path: Path) -> str:
    """A JSON pointer (RFC 6901), with over-long and unprintable names cut down."""
    steps = (UNPRINTABLE.sub("?", str(step)[:100]) for step in path)
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def faults_of(error: ValidationError, member: str) -> list[ErrorDetail]:
    """What a payload's model found wrong with this member of a command."""
    return [
        ErrorDetail(pointer_to((member, *fault["loc"])), fault["type"], in_words(fault["msg"]))
        for fault in error.errors(include_url=False, include_input=False)
    ]


def in_words(message: str) -> str:
    """A sentence of pydantic's as the others here are."""
    if message == "Field required":
        return "is missing"
    message = message.removeprefix("Value error, ").removesuffix(" after validation")
    if message.startswith("Input should be"):
        message = "must be" + message.removeprefix("Input should be")
    for noun in ("String", "Value", "List", "Dictionary"):
        message = message.replace(f"{noun} should have ", "must have ")
    return message


def with_whole_numbers(value: dict[str, Any], error: ValidationError) -> dict[str, Any] | None:
    """The value with `1` in place of `1.0` wherever that was no integer; `None` if nowhere.

    JSON does not tell the two apart, nor does JSON Schema; Python and pydantic do.
    """
    found = [
        fault["loc"]
        for fault in error.errors(include_url=False)
        if fault["type"] == "int_type"
        and type(fault["input"]) is float
        and fault["input"].is_integer()
    ]
    if not found:
        return None
    copy = deepcopy(value)
    for *path, last in found:
        try:
            place = reduce(getitem, path, cast(Any, copy))
            place[last] = int(place[last])
        except (KeyError, IndexError, TypeError):  # within a union its steps are not the value's
            return None
    return copy
