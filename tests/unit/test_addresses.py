"""The short way to accept an address is a part of the long one."""

from __future__ import annotations

import string

from email_validator import validate_email
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.entities.user import _PLAIN_ADDRESS, _PLAIN_LENGTH, _valid_address

parts = st.text(string.ascii_letters + string.digits + "._+-", max_size=20)


@given(st.builds("{}@{}.{}".format, parts, parts, parts))
def test_what_the_short_way_accepts_the_library_accepts(address: str) -> None:
    if len(address) <= _PLAIN_LENGTH and _PLAIN_ADDRESS.fullmatch(address):
        validate_email(address, check_deliverability=False, globally_deliverable=False)


# One in four is short enough. A filter, which would draw anew instead, takes ten times as long.
@settings(max_examples=120)
@given(st.from_regex(_PLAIN_ADDRESS, fullmatch=True))
def test_every_plain_address_is_one_for_the_library(address: str) -> None:
    if len(address) > _PLAIN_LENGTH:
        return
    validate_email(address, check_deliverability=False, globally_deliverable=False)
    assert _valid_address(address) == address
