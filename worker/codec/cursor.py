"""A position in the answer of a query, as text that only its own query takes back.

It holds the values that the last row had in each step of the order, so pages neither skip nor
repeat a row that stays where it is, whatever is written in between. The digest over them and over
the query tells a cursor that was altered or belongs to another query. It keeps no secret, and needs
none: whoever makes one up says no more than a `where` could say.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Any

_DIGEST_BYTES = 12
MAX_CHARACTERS = 100_000


def write_cursor(shape: bytes, position: list[Any]) -> str:
    """The cursor of a position, whose values are JSON values."""
    body = json.dumps(position, separators=(",", ":")).encode()
    return urlsafe_b64encode(_digest(shape, body) + body).decode().rstrip("=")


def read_cursor(shape: bytes, cursor: str) -> list[Any] | None:
    """The position of a cursor that was written for this query, else `None`."""
    try:
        raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        digest, body = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if digest != _digest(shape, body) or write_cursor(shape, json.loads(body)) != cursor:
            return None
        position = json.loads(body)
    except ValueError:
        return None
    return position if isinstance(position, list) else None


def _digest(shape: bytes, body: bytes) -> bytes:
    return blake2b(shape + b"\0" + body, digest_size=_DIGEST_BYTES).digest()
