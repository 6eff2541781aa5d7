"""What the collection says of each text is what the codec says of it, and what `json` says."""

from __future__ import annotations

import json

import pytest

from dev.fuzz.documents import READ, REFUSED, UNSTORABLE, within
from tests.support.fakes import delivery, make_codec
from worker.core.messages import Command, Rejected

CODEC = make_codec()


def shown(document: bytes) -> str:
    return f"{len(document)}-{ascii(document[:24])[2:-1]}"


def test_the_collection_holds_nothing_twice() -> None:
    everything = [*READ, *REFUSED, *UNSTORABLE]
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("document", READ, ids=shown)
def test_what_can_be_read_in_one_way_is_read(document: bytes) -> None:
    json.loads(document.decode())
    assert isinstance(CODEC.decode(delivery(within(document))), Command)
    alone = CODEC.decode(delivery(document))
    assert isinstance(alone, Rejected)
    is_object = isinstance(json.loads(document.decode()), dict)
    assert (alone.problem.code == "malformed") is not is_object


@pytest.mark.parametrize("document", REFUSED, ids=shown)
def test_what_cannot_is_malformed(document: bytes) -> None:
    for body in (document, within(document)):
        item = CODEC.decode(delivery(body))
        assert isinstance(item, Rejected)
        assert item.problem.code == "malformed"


@pytest.mark.parametrize("document", UNSTORABLE, ids=shown)
def test_what_cannot_be_stored_is_invalid_and_answered_under_its_own_id(document: bytes) -> None:
    body = within(document).replace(b"{", b'{"id":"own",', 1)
    item = CODEC.decode(delivery(body, message_id="of-the-property"))

    assert isinstance(item, Rejected)
    assert (item.problem.code, item.envelope.id, item.envelope.type) == (
        "invalid",
        "own",
        "user.create",
    )
    assert {fault.code for fault in item.problem.errors} == {"unstorable"}
    assert all(fault.pointer.startswith("/source") for fault in item.problem.errors)
