"""Times and rates as people write and read them."""

from __future__ import annotations

import math
import re

_UNITS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_TIME = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(us|µs|ms|s|m)\s*")


def parse_seconds(text: str) -> float:
    """The seconds that `20ms`, `1.5s` or `2m` mean; raises `ValueError` on anything else."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("is no time: write a number and us, ms, s or m, such as 20ms")
    return float(match[1]) * _UNITS[match[2]]


def show_seconds(seconds: float) -> str:
    """A duration with three significant digits in the unit that suits it: `1.25 ms`.

    What is below 1.5 µs is shown as 0: no histogram of the lab can tell the two apart.
    """
    if abs(seconds) < 1.5e-6:
        return "0 s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size * 0.9995:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def show_number(value: float) -> str:
    """A number with three significant digits, thousands separated: `1,240`."""
    return _three_digits(value)


def show_share(share: float) -> str:
    """A share as percent: `2.5 %`."""
    return f"{_three_digits(share * 100)} %"


def counted(number: float, thing: str) -> str:
    """A number and a noun, as in `1 connection` and `2,000 connections`."""
    return f"{show_number(number)} {thing}" if number == 1 else f"{show_number(number)} {thing}s"


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{round(value, decimals):,.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
