"""Whether what is written may have colours; no library is needed, which the parent has none of."""

from __future__ import annotations

import os
from typing import TextIO


def shows_colour(stream: TextIO) -> bool:
    """Whether the stream is a terminal, and `NO_COLOR` (https://no-color.org) is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR")
