"""What a query may say, and how each thing that is wrong with it is told."""

from __future__ import annotations

import enum
import json
from datetime import date
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ARRAY, JSON, Enum, Integer, Numeric, SmallInteger, String, Table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tests.support.harness import Nowhere
from worker import Payload, Row, crud_entity
from worker.codec.codec import Codec
from worker.core.errors import Misconfigured
from worker.core.messages import Delivery, Query, Rejected
from worker.core.queries import Compare, Page
from worker.core.query_schema import QuerySchemas
from worker.core.registry import Registry, load_registry

CODEC = Codec(load_registry("worker.entities"))


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


class QueriedThing(Row):
    __tablename__ = "queried_things"

    not_queried = frozenset({"secret"})

    price: Mapped[Decimal] = mapped_column(Numeric(30, 10))
    small: Mapped[int] = mapped_column(SmallInteger)
    day: Mapped[date]
    token: Mapped[UUID]
    size: Mapped[Size]
    colour: Mapped[str] = mapped_column(Enum("red", "blue", name="colour", native_enum=False))
    tags: Mapped[list[str]] = mapped_column(ARRAY(String))
    matrix: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    extra: Mapped[dict[str, Any]] = mapped_column(JSONB)
    plain: Mapped[dict[str, Any]] = mapped_column(JSON)
    data: Mapped[bytes]
    secret: Mapped[str]


# No migration makes it: it must not be compared with them.
Row.metadata.remove(cast(Table, QueriedThing.__table__))


class Nothing(Payload):
    """No fields."""


THING = crud_entity(name="thing", model=QueriedThing, create=Nothing, update=Nothing)
THINGS = Codec(Registry([THING]))


def decoded(codec: Codec, type_: str, data: Any, **members: Any) -> Query | Rejected:
    body = json.dumps({"type": type_, "data": data, **members}).encode()
    item = codec.decode(Delivery(body, tag=0, source=Nowhere(), reply_to="somebody"))
    assert isinstance(item, Query | Rejected)
    return item


def faults(data: Any, type_: str = "user.list", codec: Codec = CODEC) -> dict[str, str]:
    item = decoded(codec, type_, data)
    assert isinstance(item, Rejected), item
    assert item.problem.code == "invalid"
    return {fault.pointer: fault.detail for fault in item.problem.errors}


@pytest.mark.parametrize(
    ("data", "pointer", "says"),
    [
        ([], "/data", "must be an object"),
        ({"wher": {}}, "/data/wher", "order_by, where"),
        ({"where": []}, "/data/where", "must be an object"),
        ({"where": {"usernam": "a"}}, "/data/where/usernam", "did you mean username?"),
        ({"where": {"username": {"like": "a"}}}, "/data/where/username/like", "there are:"),
        ({"where": {"username": {}}}, "/data/where/username", "names no operator"),
        ({"where": {"username": 5}}, "/data/where/username", "must be a valid string"),
        ({"where": {"username": {"contains": 5}}}, "/data/where/username/contains", "be text"),
        ({"where": {"rating": "5"}}, "/data/where/rating", "must be a valid number"),
        ({"where": {"rating": True}}, "/data/where/rating", "must be a valid number"),
        ({"where": {"rating": 2**53 + 1}}, "/data/where/rating", "exactly"),
        ({"where": {"rating": {"contains": "5"}}}, "/data/where/rating/contains", "not known"),
        ({"where": {"id": 1.5}}, "/data/where/id", "integer"),
        ({"where": {"id": True}}, "/data/where/id", "must be a valid integer"),
        ({"where": {"id": 2**63}}, "/data/where/id", "out of the field's range"),
        ({"where": {"version": 2**31}}, "/data/where/version", "out of the field's range"),
        ({"where": {"email": None}}, "/data/where/email", "is_null"),
        ({"where": {"id": {"in": [1, None]}}}, "/data/where/id/in/1", "is_null"),
        ({"where": {"id": {"in": 1}}}, "/data/where/id/in", "must be a list"),
        ({"where": {"id": [1]}}, "/data/where/id", '{"in": […]}'),
        ({"where": {"id": {"is_null": 1}}}, "/data/where/id/is_null", "true or false"),
        ({"where": {"created_on": "5"}}, "/data/where/created_on", "RFC 3339"),
        ({"where": {"created_on": "2026-01-01T00:00:00"}}, "/data/where/created_on", "timezone"),
        ({"where": {"or": {}}}, "/data/where/or", "must be a list"),
        ({"where": {"or": [{"x": 1}]}}, "/data/where/or/0/x", "is not known here"),
        ({"where": {"not": []}}, "/data/where/not", "must be an object"),
        ({"where": {"orders": {"is_completed": True}}}, "/data/where/orders", "some, none, every"),
        ({"where": {"orders": {"some": {"x": 1}}}}, "/data/where/orders/some/x", "is not known"),
        ({"where": {"id": {"in": list(range(1001))}}}, "/data/where", "more than 1,000 values"),
        ({"where": {"or": [{"id": 1}] * 101}}, "/data/where", "more than 100 conditions"),
        ({"where": {"all": True, "id": 1}}, "/data/where/all", "is not known"),
        ({"limit": 0}, "/data/limit", "from 1 to 1000"),
        ({"limit": 10**9}, "/data/limit", "from 1 to 1000"),
        ({"limit": True}, "/data/limit", "from 1 to 1000"),
        ({"order_by": "id"}, "/data/order_by", "must be a list"),
        ({"order_by": ["-nope"]}, "/data/order_by/0", "is not known here"),
        ({"order_by": ["id", "-id"]}, "/data/order_by", "names a field twice"),
        ({"fields": ["id", "id"]}, "/data/fields", "twice"),
        ({"fields": []}, "/data/fields", "not empty"),
        ({"fields": [1]}, "/data/fields", "nothing but texts"),
        ({"include": ["order"]}, "/data/include/0", "did you mean orders?"),
        ({"include": ["orders.user"]}, "/data/include/0", "loops"),
        ({"aggregate": {}}, "/data/aggregate", "must be an object such as"),
        ({"aggregate": {"median": ["id"]}}, "/data/aggregate/median", "is not known here"),
        ({"aggregate": {"max": ["username"]}}, "/data/aggregate/max/0", "is not known here"),
        ({"aggregate": {"avg": ["created_on"]}}, "/data/aggregate/avg/0", "is not known here"),
        ({"aggregate": {"count": False}}, "/data/aggregate/count", "must be true"),
        ({"aggregate": {"count": True}, "fields": ["id"]}, "/data/fields", "beside aggregate"),
        ({"group_by": ["id"]}, "/data/group_by", "needs aggregate"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(data: Any, pointer: str, says: str) -> None:
    found = faults(data)
    assert pointer in found, found
    assert says in found[pointer]


def nested(depth: int) -> Any:
    where: Any = {"id": 1}
    for _ in range(depth - 1):
        where = {"not": where}
    return {"where": where}


def test_a_filter_is_at_most_eight_deep() -> None:
    assert isinstance(decoded(CODEC, "user.list", nested(8)), Query)
    assert "more than 8 deep" in faults(nested(9))["/data/where"]


def test_numbers_stay_exact() -> None:
    query = decoded(CODEC, "user.list", {"where": {"id": 2**53 + 1}})
    assert isinstance(query, Query)
    assert isinstance(query.asked, Page)
    assert query.asked.where == Compare("id", "eq", 2**53 + 1)


@pytest.mark.parametrize(
    ("where", "is_right"),
    [
        ({"price": "12345678901234567890.0123456789"}, True),
        ({"price": 0.1}, True),
        ({"price": "NaN"}, False),
        ({"small": 2**15}, False),
        ({"day": {"gte": "2026-01-31"}}, True),
        ({"day": "2026-02-31"}, False),
        ({"token": "3f2b8f0e-8e8b-7b7b-8b8b-8b8b8b8b8b8b"}, True),
        ({"token": "x"}, False),
        ({"size": "s"}, True),
        ({"size": "SMALL"}, False),
        ({"colour": "red"}, True),
        ({"colour": "green"}, False),
        ({"tags": ["a"]}, False),  # no shorthand
        ({"tags": {"eq": ["a"]}}, True),
        ({"tags": {"eq": [1]}}, False),
        ({"matrix": {"eq": [1, 2]}}, True),
        ({"extra": {"eq": {"a": [1, None]}}}, True),
        ({"extra": {"a": 1}}, False),  # an operator, not a member
        ({"plain": {"eq": {}}}, False),  # PostgreSQL knows no equality of json
        ({"plain": {"is_null": True}}, True),
        ({"data": {"is_null": False}}, True),
        ({"data": {"eq": "x"}}, False),
        ({"secret": "x"}, False),
    ],
)
def test_fields_of_every_type_of_an_own_entity(where: Any, is_right: bool) -> None:
    item = decoded(THINGS, "thing.list", {"where": where})
    assert isinstance(item, Query) is is_right, item


def test_what_is_not_queried_is_not_shown_either() -> None:
    query = decoded(THINGS, "thing.list", {})
    assert isinstance(query, Query)
    assert "secret" not in query.asked.fields
    assert "secret" not in QuerySchemas(Registry([THING]))["thing"].fields


@pytest.mark.parametrize("name", ["and", "or", "not", "all", "some", "none", "every"])
def test_a_column_must_not_have_the_name_of_a_word(name: str) -> None:
    columns = {"__tablename__": f"words_{name}", name: mapped_column(String)}
    model: Any = type(f"Words{name}", (Row,), columns)
    entity = crud_entity(name="words", model=model, create=Nothing, update=Nothing)
    with pytest.raises(Misconfigured, match=f"Words{name}.{name}"):
        Registry([entity])
    Row.metadata.remove(model.__table__)


WORDS = (
    *("where", "id", "username", "rating", "orders", "user", "some", "every", "not", "and", "or"),
    *("in", "eq", "limit", "after", "order_by", "include", "fields", "aggregate", "group_by"),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(WORDS) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(data=JSON_VALUES, type_=st.sampled_from(["user.list", "user.get", "order.list"]))
def test_whatever_it_holds_is_a_query_or_a_problem(data: Any, type_: str) -> None:
    item = decoded(CODEC, type_, data)
    if isinstance(item, Rejected):
        assert item.problem.errors
        assert len(item.problem.errors) <= 20


def test_who_asks_the_worker_itself_is_refused() -> None:
    codec = Codec(load_registry("worker.entities"), own_queues=frozenset({"worker.commands"}))
    body = b'{"type": "user.list"}'
    item = codec.decode(Delivery(body, tag=0, source=Nowhere(), reply_to="worker.commands"))
    assert isinstance(item, Rejected)
    assert [fault.code for fault in item.problem.errors] == ["own_queue"]


def test_a_query_has_no_version_to_expect() -> None:
    item = decoded(CODEC, "user.get", None, target={"id": 1}, expected_version=2)
    assert isinstance(item, Rejected)
    assert item.problem.errors[0].pointer == "/expected_version"
