"""Users: a unique name, a unique address, perhaps a rating."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, StringConstraints
from sqlalchemy import CheckConstraint, Double, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from worker import Key, OneLine, Payload, Row, crud_entity, omitted

if TYPE_CHECKING:
    from worker.entities.order import Order


class User(Row):
    """A person who can order."""

    __tablename__ = "users"

    ignore_case = frozenset({"email"})

    username: Mapped[str] = mapped_column(String(150), unique=True)
    email: Mapped[str] = mapped_column(String(254))
    rating: Mapped[float | None] = mapped_column(Double)

    orders: Mapped[list[Order]] = relationship(back_populates="user", passive_deletes="all")

    __table_args__ = (
        *Row.rules(),
        # Two addresses that differ only in case reach the same mailbox.
        Index("uq_users_email_lower", func.lower(email), unique=True),
        CheckConstraint("char_length(username) >= 1", name="username_not_empty"),
        CheckConstraint("char_length(email) >= 3", name="email_not_empty"),
        # JSON has no way to write these, so no event could carry them.
        CheckConstraint("rating NOT IN ('NaN', 'Infinity', '-Infinity')", name="rating_finite"),
    )


# Nine addresses in ten look like this; the library takes 20 µs for what these few rules tell, too.
# It is a part of what the library accepts (a test compares them).
_PLAIN_ADDRESS = re.compile(
    r"[A-Za-z0-9_+]+(?:[.-][A-Za-z0-9_+]+)*@(?:[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,}"
)
_PLAIN_LENGTH = 64  # no part of it can be too long then


def _valid_address(value: str) -> str:
    if len(value) <= _PLAIN_LENGTH and _PLAIN_ADDRESS.fullmatch(value):
        return value
    try:
        # Deliverability is the network's to know; an intranet's own names are valid here.
        validate_email(value, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError as error:
        raise ValueError(f"is not a valid e-mail address: {error}") from None
    return value


Username = Annotated[str, StringConstraints(min_length=1, max_length=150), OneLine]
Email = Annotated[
    str,
    StringConstraints(min_length=3, max_length=254),
    OneLine,
    AfterValidator(_valid_address),
]
Rating = Annotated[float, Field(allow_inf_nan=False)]


class UserKey(Key):
    """Names a user."""

    username: Username = omitted()
    email: Email = omitted()


class UserCreate(Payload):
    """The values of a new user."""

    username: Username
    email: Email
    rating: Rating | None = None


class UserUpdate(Payload):
    """The fields of a user to change."""

    username: Username = omitted()
    email: Email = omitted()
    rating: Rating | None = None


USER = crud_entity(
    name="user",
    model=User,
    create=UserCreate,
    update=UserUpdate,
    target=UserKey,
    natural_key="username",
)
