"""Characters that text must not hold, and what is written in place of such text."""

UNSTORABLE = r"\u0000\ud800-\udfff"
"""What PostgreSQL's text cannot hold, U+0000 and halves of surrogate pairs: for a character class
of Python's as of ECMAScript's regular expressions."""

CONTROL = r"\u0000-\u001f\u007f-\u009f"
"""Control characters, for a character class of Python's as of ECMAScript's regular expressions."""


def escaped(text: str) -> str:
    """The text for a log line: all of it escaped if it holds what a terminal would act on."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
