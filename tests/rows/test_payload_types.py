"""What JSON has no type for comes as text, is stored as its column's type, and told as it came."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import Field, NaiveDatetime, ValidationError
from sqlalchemy import (
    ARRAY,
    Date,
    DateTime,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    Time,
    Uuid,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tests.rows.desk import Desk, Odd, create, delete, types, update
from worker.codec.schemas import schema_of
from worker.core.payloads import Key, Payload, omitted
from worker.core.registry import Registry
from worker.processing.crud import crud_entity


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Part(Payload):
    color: Color
    since: date | None = None
    weight: Decimal = Decimal(1)


class Item(Odd):
    __tablename__ = "items"
    code: Mapped[UUID] = mapped_column(Uuid, unique=True)
    day: Mapped[date | None] = mapped_column(Date, unique=True)
    at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    plain_at: Mapped[datetime | None] = mapped_column(DateTime)
    opens: Mapped[time | None] = mapped_column(Time)
    takes: Mapped[timedelta | None] = mapped_column(Interval)
    price: Mapped[Decimal | None] = mapped_column(Numeric(8, 2), unique=True)
    color: Mapped[Color | None] = mapped_column(EnumType(Color))
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    parts: Mapped[Any] = mapped_column(JSONB, nullable=True)
    codes: Mapped[list[UUID] | None] = mapped_column(ARRAY(Uuid))
    pair: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))


class ItemKey(Key):
    code: UUID = omitted()
    day: date = omitted()
    price: Decimal = omitted()


class ItemUpdate(Payload):
    code: UUID = omitted()
    day: date | None = omitted()
    at: datetime | None = omitted()
    plain_at: NaiveDatetime | None = omitted()
    opens: time | None = omitted()
    takes: timedelta | None = omitted()
    price: Annotated[Decimal, Field(max_digits=8, decimal_places=2)] | None = omitted()
    color: Color | None = omitted()
    raw: bytes | None = omitted()
    parts: list[Part] | None = omitted()
    codes: list[UUID] | None = omitted()
    pair: tuple[int, int] | None = omitted()


class ItemCreate(ItemUpdate):
    code: UUID


ITEM = crud_entity(name="item", model=Item, create=ItemCreate, update=ItemUpdate, target=ItemKey)
CODE = "550e8400-e29b-41d4-a716-446655440000"
SENT: dict[str, Any] = {
    "code": CODE,
    "day": "2026-02-28",
    "at": "2026-02-28T12:00:00.500000+02:00",
    "plain_at": "2026-02-28T12:00:00",
    "opens": "08:30:00",
    "takes": "P1DT2H",
    "price": "12.50",
    "color": "red",
    "raw": "_-8=",
    "parts": [{"color": "blue", "since": "2026-01-01", "weight": 2.5}, {"color": "red"}],
    "codes": [CODE],
    "pair": [1, 2],
}
TOLD = SENT | {
    "at": "2026-02-28T10:00:00.500000Z",
    "parts": [
        {"color": "blue", "since": "2026-01-01", "weight": "2.5"},
        {"color": "red", "since": None, "weight": "1"},
    ],
}


@pytest.mark.parametrize("size", [1, 5])
async def test_values_of_all_types_there_and_back(desk: Desk, size: int) -> None:
    await desk.sql("DROP TYPE IF EXISTS color CASCADE")
    await desk.open(ITEM)
    codes = [CODE[:-1] + str(number) for number in range(size)]
    own = [
        {"code": code, "day": f"2026-02-1{n}", "price": f"{n}.50"} for n, code in enumerate(codes)
    ]
    created = await desk.together(*(create("item", **SENT | each) for each in own))
    assert types(created) == ["created"] * size
    assert [event["data"] | TOLD | each for event, each in zip(created, own, strict=True)] == [
        event["data"] for event in created
    ]

    targets = [{"code": own[0]["code"].upper()}, {"day": own[0]["day"]}, {"price": "0.5"}]
    changes = {"raw": "", "takes": "-P1D", "parts": [], "color": None, "at": None, "pair": [3, 4]}
    updated = await desk.together(*(update("item", target, **changes) for target in targets))
    assert types(updated) == ["updated"] * 3
    assert updated[-1]["data"] | changes == updated[-1]["data"]
    assert (
        types(await desk.together(*(delete("item", code=code) for code in codes)))
        == ["deleted"] * size
    )


WRONG: dict[str, list[Any]] = {
    "code": ["550e8400e29b41d4a716446655440000", f"{{{CODE}}}", 5, "x"],
    "day": ["2026-02-30", "2026-2-3", 5, "5", "2026-02-28T00:00:00"],
    "at": ["5", 5, 1.5, "2026-02-28T12:00:00", "2026-02-28", "2026-02-28 12:00:00Z"],
    "plain_at": ["2026-02-28T12:00:00Z", "5"],
    "opens": ["8:30", 5, "25:00:00", "08:30:00\n"],
    "takes": ["1 day", "08:30:00", "P", "PT", 5, "P1M"],
    "price": ["1_0", " 5", "NaN", "1.005", True, "1e5", [1]],
    "color": ["RED", "green", 1, True, ["red"]],
    "raw": ["é", "aGk", "aG k", 5],
    "parts": [{}, [{"color": "x"}], [{"color": "red", "more": 1}]],
    "codes": [["x"], "x"],
    "pair": [[1], [1, "2"], [1, True], 5, {}],
}
EACH_WRONG = [(field, value) for field, values in WRONG.items() for value in values]
NO_PATTERN_TELLS = ("2026-02-30", "25:00:00", "1.005")


@pytest.mark.parametrize(("field", "value"), EACH_WRONG, ids=str)
def test_nothing_is_silently_taken_for_something_else(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        ItemUpdate.model_validate({field: value})


def test_the_schema_says_so() -> None:
    definitions = schema_of(Registry([ITEM]), "item.create")["$defs"]
    properties = definitions["ItemCreate"]["properties"]
    for field, value in SENT.items():
        if isinstance(value, str) and field != "color":
            assert re.search(_text_of(properties[field])["pattern"], value), field
    for field, value in EACH_WRONG:
        pattern = _text_of(properties[field]).get("pattern")
        if pattern and isinstance(value, str) and value not in NO_PATTERN_TELLS:
            assert not re.search(pattern, value), (field, value)
    assert "format" not in json.dumps(definitions), "Ajv's strict mode does not know any"


def _text_of(schema: dict[str, Any]) -> dict[str, Any]:
    choices = schema.get("anyOf", [schema])
    choices = [inner for each in choices for inner in each.get("anyOf", [each])]
    return next((each for each in choices if "pattern" in each), {})


def test_python_s_own_values_are_taken_as_they_are() -> None:
    item = ItemUpdate(code=UUID(CODE), price=Decimal("1.5"), at=datetime(2026, 1, 1, tzinfo=UTC))
    assert item.model_fields_set == {"code", "price", "at"}
    assert ItemUpdate.model_validate({"price": 0.1}).price == Decimal("0.1")
