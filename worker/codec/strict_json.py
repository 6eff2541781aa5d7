"""JSON that can be read in one way only (RFC 8259; where that leaves a choice, RFC 7493).

Whatever two readers could understand differently is refused: a member given twice, numbers that are
none, nesting without end. What can be read and cannot be stored is found apart from that, so that
its sender is answered under the id of the command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from worker.core.messages import Delivery
from worker.core.text import UNSTORABLE

MAX_DEPTH = 100

Path = tuple[str | int, ...]
"""Where something stands in a document: names of members and places in lists."""

_UNSTORABLE = re.compile(f"[{UNSTORABLE}]")
# Only an escape can bring these in: JSON forbids raw control characters, UTF-8 raw surrogates.
_SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class Malformed(ValueError):
    """The body is no JSON object that can be read in one way only."""


class DuplicateMember(Malformed):
    """An object has the same member twice."""


def read_json(text: str) -> Any:
    """The value of a JSON text; raises `Malformed` where it has no one reading."""
    try:
        return _decode_json(text)
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    except Malformed:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise Malformed(
            f"it is not JSON: {error.msg[0].lower()}{error.msg[1:]} at {where}"
        ) from None
    except ValueError:  # an integer with thousands of digits
        raise Malformed("it holds a number that is out of range") from None


def read_object(delivery: Delivery) -> dict[str, Any]:
    """The members of the body's JSON object; raises `Malformed` with what is wrong, in words."""
    if delivery.unreadable:
        raise Malformed(delivery.unreadable)
    if (delivery.content_encoding or "").lower() not in ("", "utf-8", "utf8", "identity"):
        raise Malformed("compressed or encoded bodies are not accepted; send plain UTF-8")
    if delivery.body.startswith(b"\xef\xbb\xbf"):
        raise Malformed("it begins with a byte order mark; send UTF-8 without one")
    try:
        text = delivery.body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"byte {error.start} is not UTF-8") from None
    if not text.strip():
        raise Malformed("it is empty")
    members = read_json(text)
    if not isinstance(members, dict):
        raise Malformed("it is not a JSON object")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(members) > MAX_DEPTH:
        raise Malformed(f"it is nested more than {MAX_DEPTH} deep")
    return members


def may_hold_unstorable(body: bytes) -> bool:
    """Whether a string in this JSON might be one that cannot be stored."""
    return _SUSPECT.search(body) is not None


def find_unstorable(members: dict[str, Any]) -> list[Path]:
    """Where strings that cannot be stored stand, names of members included."""
    return [path for path, string in _strings(members, ()) if _UNSTORABLE.search(string)]


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMember("an object has the same member twice")
    return members


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Malformed("it holds a number that is out of range")
    return value


_decode_json = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite
).decode


def _strings(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every string within a document that is not nested too deeply, and where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name), name
            yield from _strings(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _strings(inner, (*path, place))


def _depth(value: Any) -> int:
    """How deep objects and lists are nested, without recursion."""
    depth, level = 0, [value]
    while level := [
        inner
        for outer in level
        if isinstance(outer, dict | list)
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
    return depth
