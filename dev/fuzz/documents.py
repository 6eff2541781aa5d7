"""JSON texts that parsers get wrong, or differ in.

The idea is that of the public parsing corpora, the texts are our own. `READ` can be read in one way
only and stored, `UNSTORABLE` can be read, and PostgreSQL could not store it; `REFUSED` is no JSON
(RFC 8259), or what RFC 8259 leaves to the parser and two parsers would understand differently.
"""

from __future__ import annotations


def _utf8(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


_NUMBERS = _utf8(
    *("0", "-0", "-0.0", "1", "-1", "0.1", "1e5", "1E5", "1e+5", "1e-5", "0e0", "0E+0", "1.5e3"),
    *("1e-999", "-1e-999", "5e-324", "1.7976931348623157e308", "0.30000000000000004"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *("123456789012345678901234567890", "1" + "0" * 400, "0." + "1" * 5_000, "1e0000000000000001"),
)
_STRINGS = _utf8(
    *(
        '""',
        '"a"',
        '" "',
        '"\\""',
        '"\\\\"',
        '"\\/"',
        '"\\b\\f\\n\\r\\t"',
        '"\\u0041"',
        '"\\u00e9"',
    ),
    *('"\\uD83D\\uDE00"', '"\\u007f"', '"\x7f"', '"é"', '"e\u0301"', '"😀"', '"\\u2028"'),
    *('"\u2028"', '"\ufeff"', '"\\uFEFF"', '"\uffff"', '"\ufdd0"', '"\U0010ffff"', '"\u202e"'),
    *('"\\\\u0000"', '"\\\\ud800"', '"\\u001b[31m"', '"\\r\\n"', '"NaN"', '"null"', '"\u200b"'),
    '"' + "x" * 50_000 + '"',
    '"' + "\\u00e9" * 5_000 + '"',
)
_STRUCTURES = _utf8(
    *("null", "true", "false", "[]", "{}", "[1]", "[[]]", "[{}]", '{"a":[]}', '{"":0}', '{" ":0}'),
    *('{"a":{"a":{"a":1}}}', '{"__proto__":1}', '{"constructor":{"prototype":{}}}', '{"$ref":"#"}'),
    *(" \t\r\n[ 1 , 2 ] \r", "[\n1\n]", '{"é":1,"e\u0301":2}', '{"a":1,"A":2}', '{"1":1,"01":2}'),
    "[" * 90 + "]" * 90,
    '{"a":' * 90 + "1" + "}" * 90,
    "[" + ",".join("0" * 5_000) + "]",
    "[" + ",".join(["[]"] * 5_000) + "]",
    "{" + ",".join(f'"{number}":{number}' for number in range(5_000)) + "}",
)
READ: list[bytes] = [*_NUMBERS, *_STRINGS, *_STRUCTURES]

_NO_NUMBERS = _utf8(
    *("+1", "01", "-01", "00", "-", "--1", "- 1", "1.", ".5", "-.5", "1.e1", "1e", "1e+", "1e1.5"),
    *(
        "0x1F",
        "0b1",
        "0o7",
        "1_000",
        "1,000",
        "1 000",
        "1f",
        "1n",
        "∞",
        "1/2",
        "1e１",
        "１",
        "\u0661",
    ),
    *("NaN", "nan", "-NaN", "Infinity", "-Infinity", "+Infinity", "inf", "1#INF"),
    # Left to the parser:
    *("1e999", "-1e999", "1" + "0" * 309 + ".0", "9" * 4_301, "-" + "9" * 100_000),
)
_NO_STRINGS = [
    *_utf8('"', '"abc', '"\\', '"\\"', '"\\x41"', '"\\u"', '"\\u12"', '"\\uZZZZ"', '"\\U0041"'),
    *_utf8('"\\u 041"', '"\\u-041"', '"\\a"', '"\\\'"', '"\\0"', "'a'", "`a`", "“a”", "a", '"a"b'),
    *_utf8(
        '"\n"', '"\t"', '"\r"', '"\x00"', '"\x1b[31m"', '"\x1f"', '"\\\n"', '"a" "b"', '"""a"""'
    ),
    # Not UTF-8: a stray byte, overlong forms, surrogates, beyond Unicode, cut off, Latin-1.
    *(
        b'"\x80"',
        b'"\xc0\xaf"',
        b'"\xe0\x80\x80"',
        b'"\xed\xa0\x80"',
        b'"\xed\xa0\x80\xed\xb0\x80"',
    ),
    *(b'"\xf4\x90\x80\x80"', b'"\xf8\x88\x80\x80\x80"', b'"\xe2\x82"', b'"\xe9"', b'"\xff\xfe"'),
]
UNSTORABLE: list[bytes] = _utf8(
    # Halves of pairs, and U+0000; in values, in names, and within.
    *('"\\ud800"', '"\\udc00"', '"\\udc00\\ud800"', '"\\ud800\\ud800"', '"\\ud83d\\u0041"'),
    *('"\\ud83d😀"', '"\\u0000"', '"a\\u0000b"', '["\\uDFFF"]', '{"\\ud800":1}', '{"\\u0000":1}'),
    *('[[{"a":["\\uDbFf"]}]]', '"\\\\\\u0000"', '{"a":null,"b\\uD8AA":"\\u0000"}'),
    "[" + ",".join(['"\\u0000"'] * 500) + "]",
)
_NO_STRUCTURES = [
    *_utf8("", "[", "]", "{", "}", "[1", "[1,]", "[,1]", "[,]", "[1,,2]", "[1 2]", "[1]]", "[1}"),
    *_utf8("{,}", '{"a"}', '{"a":}', '{"a":1,}', '{"a" 1}', '{"a"::1}', '{"a":1 "b":2}', '{"a",1}'),
    *_utf8("{a:1}", "{'a':1}", "{1:1}", "{null:1}", "{[]:1}", '{"a":1}}', '{"a":1', '{"a', "[{]}"),
    *_utf8(
        "nul", "nulll", "Null", "NULL", "None", "True", "FALSE", "tru", "undefined", "1;", "(1)"
    ),
    *_utf8("// c\n1", "/* c */ 1", "1 // c", "# c\n1", "<!-- c --> 1", "1 1", "[1] x", "{} {}"),
    # White space that JSON has not: form feed, vertical tab, NEL, no-break and zero-width space.
    *_utf8("\f1", "\v1", "\x851", "\xa01", "\u200b1", "\u20281", "\ufeff1", "[\x001]", "1\x00"),
    *('"a"'.encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    # Left to the parser: members given twice, and nesting without end.
    *_utf8('{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '[{"b":[{"a":1,"a":2}]}]', '{"":1,"":2}'),
    *_utf8("[" * 101 + "]" * 101, "[" * 5_000 + "]" * 5_000, "[" * 100_000, "{" * 1_000),
    ('{"a":' * 20_000 + "1" + "}" * 20_000).encode(),
    *(b"%PDF-1.7\n", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", b"a=1&b=2", b"<user/>", b"\x82\xa1a\x01"),
    *(b"--- !user\na: 1\n", b"'; DROP TABLE users; --", b"$(reboot)", b"${jndi:ldap://x}", b"\x00"),
]
REFUSED: list[bytes] = [*_NO_NUMBERS, *_NO_STRINGS, *_NO_STRUCTURES]


def within(document: bytes) -> bytes:
    """The document as a member of a command that else is well: only what it is can be wrong."""
    return b'{"type":"user.create","data":{"username":"u","email":"u@example.com"},"source":%s}' % (
        document
    )
