"""Characters that text must not hold, and what is written in place of such text."""

import re

UNSTORABLE = r"\u0000\ud800-\udfff"
"""What PostgreSQL's text cannot hold, U+0000 and halves of surrogate pairs: for a character class
of Python's as of ECMAScript's regular expressions."""

CONTROL = r"\u0000-\u001f\u007f-\u009f"
"""Control characters, for a character class of Python's as of ECMAScript's regular expressions."""

MAX_SHORT_STRING = 255
"""Bytes of an AMQP short string, as routing keys and most properties are (AMQP 0-9-1, section
4.2.5.3)."""

# `*` and `#` stand for words in the patterns that subscribers bind with.
_WORD = rf"[^.*#\s{CONTROL}{UNSTORABLE}]+"
_TYPE = re.compile(rf"{_WORD}(\.{_WORD})*")


def escaped(text: str) -> str:
    """The text for a log line: all of it escaped if it holds what a terminal would act on."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def is_event_type(text: str) -> bool:
    """Whether it can be an event's type, which is its routing key, too: words with dots between."""
    return _TYPE.fullmatch(text) is not None and len(text.encode()) <= MAX_SHORT_STRING
