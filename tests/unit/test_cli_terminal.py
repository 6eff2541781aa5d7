"""What others have sent cannot act on a terminal."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from worker.cli.terminal import as_json, columns, counted, json_safe, printable

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.text())
def test_printable_text_is_on_one_line_and_harmless(text: str) -> None:
    assert printable(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_what_is_harmless_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_escapes_controls_and_characters_that_reorder_text_are_shown_as_escapes() -> None:
    assert printable("\x1b[31mred\x07\n\x9b2J\u202eabc") == (
        "\\x1b[31mred\\x07\\n\\x9b2J\\u202eabc"
    )


@given(values)
def test_json_keeps_its_meaning_and_is_harmless(value: Any) -> None:
    for text in (as_json(value), json.dumps(value, ensure_ascii=False, indent=3)):
        safe = json_safe(text)
        assert safe.isprintable()
        assert json.loads(safe) == value


@given(st.text(), st.text())
def test_columns_are_one_harmless_line(first: str, second: str) -> None:
    line = columns((first, 20), (second, 0))
    assert line.isprintable()


def test_numbers_read_well() -> None:
    assert [counted(number, "letter") for number in (0, 1, 2_000)] == [
        "0 letters",
        "1 letter",
        "2,000 letters",
    ]
