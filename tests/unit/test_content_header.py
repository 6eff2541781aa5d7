"""A property or a header that cannot be decoded, or written again, costs only itself."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import Any, cast

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.support.fakes import ANN, make_codec
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.consumer.subscription import read_delivery
from worker.broker.protocol import properties
from worker.broker.protocol.content_header import properties_in, size_of, written_anew
from worker.broker.protocol.frame_reader import mend_header
from worker.core.messages import Command, Rejected

ALL: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"tenant": "eu", "list": [1, "a", {"b": True}], "none": None},
    "delivery_mode": 2,
    "priority": 5,
    "correlation_id": "chain",
    "reply_to": "asker",
    "expiration": "60000",
    "message_id": "m1",
    "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
    "message_type": "user.create",
    "user_id": "shop",
    "app_id": "till",
}
COPIED = ALL.keys() - {"expiration", "user_id"}
NEEDED = {"content_encoding", "correlation_id", "reply_to", "message_id", "message_type", "user_id"}
CODEC = make_codec()
BODY = b'{"data":{"username":"ann","email":"ann@example.com"}}'

# Seconds, or thousandths of them: before all years, beyond them, and what no clock counts.
TIMES = [struct.pack(">Q", time) for time in (2**64 - 62_135_596_800, 253_402_300_800_000, 2**63)]
NO_TEXTS = [b"\x02\xff\xfe", b"\x02\xc3\x28", b"\x01\x80", b"\xff" + b"\xe2" * 255]


def table(fields: bytes) -> bytes:
    return struct.pack(">I", len(fields)) + fields


def nested(depth: int) -> bytes:
    inner = table(b"")
    for _ in range(depth):
        inner = table(b"\x01aF" + inner)
    return inner


NO_FIELDS = {
    "name not UTF-8": b"\x02\xff\xfet\x01",
    "time of year 1": b"\x01xT" + TIMES[0],
    "time past 9999": b"\x01xT" + TIMES[1],
    "nested 2,000 deep": b"\x01xF" + nested(2_000),
    "a list of a time past 9999": b"\x01xA" + table(b"T" + TIMES[1]),
    "a table with an unknown type": b"\x01xF" + table(b"\x01a?"),
    "a table that ends too early": b"\x01xF" + table(b"\x7fa"),
}


def raw_header(parts: dict[str, bytes], size: int = len(BODY)) -> bytes:
    flags = sum(Basic.Properties.flags[name] for name in parts)
    in_order = (parts[name] for name in Basic.Properties.flags if name in parts)
    return struct.pack(">HHQH", 60, 0, size, flags) + b"".join(in_order)


def written(values: dict[str, Any]) -> dict[str, bytes]:
    return {name: Basic.Properties().encode_property(name, it) for name, it in values.items()}


def decode(header: bytes, body: bytes = BODY) -> Command | Rejected:
    window = cast(AckWindow, None)
    item = CODEC.decode(
        read_delivery(1, redelivered=False, header=header, body=body, window=window)
    )
    assert isinstance(item, Command | Rejected)
    return item


def assert_all_but(header: bytes, lost: str, headers: dict[str, Any]) -> None:
    """All of `ALL` is there but for the lost one, with these headers, whoever reads it."""
    expected = {**ALL, "headers": headers, lost: None}
    found = properties.read(header)
    assert found.unreadable is None
    for name in ("content_encoding", "headers", "correlation_id", "reply_to", "message_id"):
        assert getattr(found, name) == expected[name]
    assert (found.type, found.user_id) == (expected["message_type"], expected["user_id"])
    assert found.lost == {lost} & NEEDED
    copied = properties.copy_of(header, {"x-code": "invalid"})
    assert copied.headers == {**headers, "x-code": "invalid"}
    for name in COPIED - {"headers"}:
        assert getattr(copied, name) == expected[name], name
    frame = struct.pack(">BHI", 2, 3, len(header)) + header + b"\xce"
    mended = pamqp.frame.unmarshal(mend_header(frame, 3))[2]
    assert isinstance(mended, ContentHeader)
    assert mended.body_size == len(BODY)
    for name in ALL:
        assert getattr(mended.properties, name) == expected[name], name


SHORT = [name for name in ALL if Basic.Properties.amqp_type(name) == "shortstr"]


@pytest.mark.parametrize("text", NO_TEXTS, ids=len)
@pytest.mark.parametrize("name", SHORT)
def test_text_that_is_not_utf8_costs_only_its_property(name: str, text: bytes) -> None:
    assert_all_but(raw_header({**written(ALL), name: text}), name, ALL["headers"])


@pytest.mark.parametrize("time", TIMES, ids=bytes.hex)
def test_a_time_beyond_all_years_costs_only_itself(time: bytes) -> None:
    assert_all_but(raw_header({**written(ALL), "timestamp": time}), "timestamp", ALL["headers"])


@pytest.mark.parametrize("field", NO_FIELDS.values(), ids=NO_FIELDS)
@pytest.mark.parametrize("place", range(4))
def test_a_header_that_cannot_be_decoded_costs_only_itself(place: int, field: bytes) -> None:
    fields = [encode.field_table({name: it})[4:] for name, it in ALL["headers"].items()]
    fields.insert(place, field)
    header = raw_header({**written(ALL), "headers": table(b"".join(fields))})

    assert_all_but(header, "", ALL["headers"])


@pytest.mark.parametrize("field", [b"\x01x?\x00", b"\x01x", b"\x7fx"])
def test_a_field_whose_end_nothing_tells_costs_what_follows_it_in_the_table(field: bytes) -> None:
    fields = encode.field_table({"tenant": "eu"})[4:] + field
    header = raw_header({**written(ALL), "headers": table(fields)})

    assert_all_but(header, "", {"tenant": "eu"})


@pytest.mark.parametrize("cut", [1, 3, 9])
def test_properties_that_end_too_early_are_not_believed(cut: int) -> None:
    header = raw_header(written({"message_type": "user.create", "timestamp": ALL["timestamp"]}))
    item = decode(header[:-cut])

    assert isinstance(item, Rejected)
    assert item.problem.code == "malformed"
    assert "properties cannot be decoded" in item.problem.detail


@pytest.mark.parametrize("name", [*sorted(SHORT), "timestamp", "headers"])
def test_a_command_is_carried_out_unless_it_needs_what_is_lost(name: str) -> None:
    spoilt = {"timestamp": TIMES[0], "headers": table(NO_FIELDS["name not UTF-8"])}
    item = decode(raw_header({**written(ALL), name: spoilt.get(name, NO_TEXTS[0])}))

    if name not in ("message_id", "message_type"):
        assert isinstance(item, Command)
        assert item.envelope.correlation_id == ("m1" if name == "correlation_id" else "chain")
        assert item.envelope.reply_to == (None if name == "reply_to" else "asker")
        return
    # What makes it exactly once, or tells what it is, cannot be done without in silence.
    assert isinstance(item, Rejected)
    pointer, code = ("/id", "invalid") if name == "message_id" else ("/type", "unknown_type")
    assert [fault.pointer for fault in item.problem.errors] == [pointer]
    assert item.problem.code == code
    assert "not UTF-8" in item.problem.detail


def test_what_the_body_says_needs_no_property() -> None:
    parts = {**written(ALL), "message_id": NO_TEXTS[0], "message_type": NO_TEXTS[0]}
    item = decode(raw_header(parts), BODY[:-1] + b',"id":"own","type":"user.create"}')

    assert isinstance(item, Command)
    assert item.envelope.id == "own"
    assert item.data.model_dump() == {**ANN, "rating": None}


names = st.text(min_size=1, max_size=8)
writable = st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1) | st.none() | st.booleans()
not_writable = st.sampled_from([2**70, 1e300, b"\xff", {1, 2}, [2**70], {"a": 1e300}, "\ud800"])


@given(
    st.dictionaries(names, writable, max_size=5),
    st.dictionaries(names, not_writable, max_size=5),
    st.sets(st.sampled_from(SHORT)),
)
def test_what_cannot_be_written_again_costs_only_itself(
    good: dict[str, Any], bad: dict[str, Any], lost: set[str]
) -> None:
    bad = {name: value for name, value in bad.items() if name not in good}
    original = Basic.Properties(**{**ALL, "headers": {**bad, **good}})
    for name in lost:
        setattr(original, name, "x" * 256)
    copied = written_anew(original, {"x-code": "invalid"})

    assert copied.headers == {**good, "x-code": "invalid"}
    for name in ALL.keys() - {"headers"}:
        assert getattr(copied, name) == (None if name in lost else ALL[name])
    copied.marshal()


@given(st.lists(st.integers(0, 120_000), max_size=6), st.sampled_from([4_088, 65_528, 131_064]))
def test_of_headers_that_are_too_long_together_the_longest_go(sizes: list[int], limit: int) -> None:
    theirs = {f"h{number}": "x" * size for number, size in enumerate(sizes)}
    original = Basic.Properties(**{**ALL, "headers": theirs})
    copied = written_anew(original, {"x-code": "invalid"}, limit=limit)

    assert size_of(copied) <= limit
    assert copied.headers is not None
    left_out = theirs.keys() - copied.headers.keys()
    kept = [len(theirs[name]) for name in copied.headers if name != "x-code"]
    assert all(len(theirs[name]) >= max(kept, default=0) for name in left_out)
    if sum(sizes) < limit - 1_000:
        assert not left_out


@given(st.text(max_size=1_000), st.text(min_size=200, max_size=200))
def test_what_says_why_is_cut_to_what_the_smallest_frame_has_room_for(text: str, id_: str) -> None:
    longest = "x" * 255
    names = ["content_type", "content_encoding", "correlation_id", "message_id", "message_type"]
    original = Basic.Properties(headers={"theirs": "x"})
    for name in [*names, "reply_to", "app_id"]:
        setattr(original, name, longest)
    ours = {"x-code": "event_not_published", "x-detail": text, "x-command-id": id_}
    copied = written_anew(original, ours, limit=4_088)

    assert size_of(copied) <= 4_088
    assert copied.headers is not None
    assert copied.headers["x-command-id"] == id_
    assert text.startswith(str(copied.headers["x-detail"]))
    assert all(getattr(copied, name) == longest for name in names)


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(rest: bytes) -> None:
    try:
        found, _ = properties_in(struct.pack(">HHQ", 60, 0, 1) + rest)
    except ValueError:
        return
    assert isinstance(found, Basic.Properties)
