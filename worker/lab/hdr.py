"""A histogram of whole numbers, three significant digits, in HdrHistogram's published form.

Source: G. Tene, HdrHistogram (hdrhistogram.org): linear buckets of one up to 2,047, and from there
on 1,024 for each doubling, so that a value is off by 0.1 % at most. What is encoded is its format
V2, compressed, in base64, which its tools in other languages read. Only counters that are not zero
are kept. The Python package of that name needs setuptools at run time and warns on Python 3.14.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Self

LEAST, MOST, SIGNIFICANT_DIGITS = 1, 3_600_000_000, 3
_PLAIN, _COMPRESSED = 0x1C849313, 0x1C849314
"""How the two layers of format V2 begin."""
# Start, length of the counts, offset, digits, least and highest value, ratio of units.
_HEADER = struct.Struct(">iiiiqqd")
_ENVELOPE = struct.Struct(">ii")
_LINEAR_BITS = 11
_HALF = 1 << (_LINEAR_BITS - 1)


class HdrHistogram:
    """Counts of values from `LEAST` to `MOST`; others count as the nearest of these."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def record(self, value: int, count: int = 1) -> None:
        """Count a value, so many times."""
        bounded = min(max(value, LEAST), MOST)
        doublings = max(bounded.bit_length() - _LINEAR_BITS, 0)
        self._counts[doublings * _HALF + (bounded >> doublings)] += count

    def add(self, other: HdrHistogram) -> None:
        """Count what the other one has counted."""
        self._counts.update(other._counts)

    def values(self) -> Iterator[tuple[int, int]]:
        """In ascending order, the highest value that cannot be told from those seen; its count."""
        for place, count in sorted(self._counts.items()):
            doublings = max(place // _HALF - 1, 0)
            yield ((place - doublings * _HALF + 1) << doublings) - 1, count

    def encode(self) -> str:
        """The histogram as text."""
        places = sorted(self._counts)
        payload = bytearray()
        for before, place in pairwise([-1, *places]):
            if place - before > 1:
                _write(payload, before + 1 - place)  # so many counters of zero
            _write(payload, self._counts[place])
        header = (_PLAIN, len(payload), 0, SIGNIFICANT_DIGITS, LEAST, MOST, 1.0)
        packed = zlib.compress(_HEADER.pack(*header) + payload)
        return base64.b64encode(_ENVELOPE.pack(_COMPRESSED, len(packed)) + packed).decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Self:
        """The histogram of such a text. Raises `ValueError` if it is none of this range."""
        try:
            packed = base64.b64decode(text, validate=True)
            envelope, _ = _ENVELOPE.unpack_from(packed)
            plain = zlib.decompress(packed[_ENVELOPE.size :])
            start, length, _, *shape = _HEADER.unpack_from(plain)
        except (binascii.Error, struct.error, zlib.error) as error:
            raise ValueError(f"not a histogram: {error}") from error
        if (envelope, start, shape) != (
            _COMPRESSED,
            _PLAIN,
            [SIGNIFICANT_DIGITS, LEAST, MOST, 1.0],
        ):
            raise ValueError("not a histogram with the range and precision of the lab's")
        histogram = cls()
        place = 0
        for number in _read(plain[_HEADER.size : _HEADER.size + length]):
            if number > 0:
                histogram._counts[place] = number
            place += 1 if number >= 0 else -number
        return histogram


def _write(payload: bytearray, number: int) -> None:
    """Append a number, seven bits to a byte, its sign in the lowest bit (ZigZag LEB128)."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    while rest > 0x7F:
        payload.append(rest & 0x7F | 0x80)
        rest >>= 7
    payload.append(rest)


def _read(payload: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in payload:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield (number >> 1) ^ -(number & 1)
            number = shift = 0
