"""Orders: each belongs to a user and is completed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import model_validator
from sqlalchemy import ForeignKey, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from worker import Payload, Reference, Row, RowId, crud_entity, omitted
from worker.entities.user import UserKey

if TYPE_CHECKING:
    from worker.entities.user import User


class Order(Row):
    """Something that a user ordered."""

    __tablename__ = "orders"

    # Indexed: deleting a user looks for its orders.
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    is_completed: Mapped[bool] = mapped_column(default=False, server_default=false())

    user: Mapped[User] = relationship(back_populates="orders")


class _Owned(Payload):
    """The user, by id or by any unique key."""

    user_id: RowId = omitted()
    user: UserKey = omitted()

    @property
    def _named(self) -> int:
        return len(self.model_fields_set & {"user_id", "user"})


class OrderCreate(_Owned):
    """The values of a new order."""

    is_completed: bool = False

    @model_validator(mode="after")
    def _one_user(self) -> Self:
        if self._named != 1:
            raise ValueError('must hold either "user_id" or "user"')
        return self


class OrderUpdate(_Owned):
    """The fields of an order to change."""

    is_completed: bool = omitted()

    @model_validator(mode="after")
    def _at_most_one_user(self) -> Self:
        if self._named > 1:
            raise ValueError('must not hold both "user_id" and "user"')
        return self


ORDER = crud_entity(
    name="order",
    model=Order,
    create=OrderCreate,
    update=OrderUpdate,
    references=(Reference("user_id", entity="user", name="user"),),
)
