"""The short way to accept an address is a part of the long one."""

from __future__ import annotations

import string

from email_validator import validate_email
from hypothesis import given
from hypothesis import strategies as st

from worker.entities.user import _PLAIN_ADDRESS, _PLAIN_LENGTH, _valid_address

parts = st.text(string.ascii_letters + string.digits + "._+-", max_size=20)


@given(st.builds("{}@{}.{}".format, parts, parts, parts))
def test_what_the_short_way_accepts_the_library_accepts(address: str) -> None:
    if len(address) <= _PLAIN_LENGTH and _PLAIN_ADDRESS.fullmatch(address):
        validate_email(address, check_deliverability=False, globally_deliverable=False)


# The same pattern with an end to its repetitions: else three in four are too long, and all of them
# take ten times as long to draw.
SHORT = _PLAIN_ADDRESS.pattern
for endless, ended in (("]+", "]{1,8}"), (")*", "){0,1}"), (")+", "){1,2}"), ("{2,}", "{2,6}")):
    SHORT = SHORT.replace(endless, ended)


@given(st.from_regex(SHORT, fullmatch=True))
def test_every_plain_address_is_one_for_the_library(address: str) -> None:
    assert len(address) <= _PLAIN_LENGTH
    assert _PLAIN_ADDRESS.fullmatch(address)
    validate_email(address, check_deliverability=False, globally_deliverable=False)
    assert _valid_address(address) == address
