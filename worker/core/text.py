"""Characters that text must not hold, for regular expressions."""

UNSTORABLE = r"\u0000\ud800-\udfff"
"""What PostgreSQL's text cannot hold, U+0000 and halves of surrogate pairs: for a character class
of Python's as of ECMAScript's regular expressions."""

CONTROL = r"\u0000-\u001f\u007f-\u009f"
"""Control characters, for a character class of Python's as of ECMAScript's regular expressions."""
