"""What every table of an entity has in common."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, MetaData, func
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from worker.core.messages import utc_now

# Constraints carry names, so that migrations can alter them and a violation can be told apart.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Root of all mapped classes; its metadata is what Alembic compares the database with."""

    metadata = MetaData(naming_convention=NAMING)


class Row(Base):
    """A row of an entity: its identity, its version and its times.

    `version` starts at 1 and grows by one with each update, for optimistic locking by the sender.
    The worker sets the times itself, from one clock; the defaults serve rows made by hand.
    """

    __abstract__ = True

    ignore_case: ClassVar[frozenset[str]] = frozenset()
    """Unique text columns that are compared without regard to case: their unique index is on
    `lower(column)`."""
    not_queried: ClassVar[frozenset[str]] = frozenset()
    """Columns and relationships of which queries know nothing: they are not shown, filtered,
    ordered, grouped, followed or included."""

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True, sort_order=-10)
    version: Mapped[int] = mapped_column(default=1, server_default="1", sort_order=10)
    created_on: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), sort_order=11
    )
    updated_on: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=utc_now, sort_order=12
    )

    # Hidden from type checkers, which would ask of an entity's own tuple to be a directive as well.
    if not TYPE_CHECKING:

        @declared_attr.directive
        def __table_args__(cls) -> Any:  # noqa: N805 - SQLAlchemy hands over the class
            """Rules of every entity; an entity adds its own with `*Row.rules()`."""
            return Row.rules()

    @staticmethod
    def rules() -> tuple[Any, ...]:
        """The constraints that every entity's table has."""
        return (CheckConstraint("version >= 1", name="version_positive"),)
