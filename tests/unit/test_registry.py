"""What the service can do follows from the entities that are declared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import REGISTRY
from worker.core.errors import Misconfigured
from worker.core.models import Row
from worker.core.payloads import Payload
from worker.core.registry import Entity, Registry, load_registry
from worker.entities.order import ORDER, Order, OrderCreate
from worker.entities.user import USER, User, UserCreate


@pytest.fixture
def module() -> Iterator[ModuleType]:
    made = ModuleType("entities_of_a_test")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_all_types_are_known() -> None:
    assert REGISTRY.types == [
        "user.create",
        "user.update",
        "user.delete",
        "order.create",
        "order.update",
        "order.delete",
    ]
    for type_ in REGISTRY.types:
        found = REGISTRY.find(type_)
        assert found is not None
        assert f"{found[0].name}.{found[1]}" == type_


@given(st.text(max_size=20))
def test_nothing_else_is_found(type_: str) -> None:
    assert (REGISTRY.find(type_) is not None) == (type_ in REGISTRY.types)


def test_entities_are_found_by_name_and_by_row() -> None:
    assert [entity.name for entity in REGISTRY] == ["user", "order"]
    assert REGISTRY["order"] is ORDER
    assert REGISTRY.of_row(Order()) is ORDER
    assert REGISTRY.of_row(User()) is USER


def test_an_entity_tells_its_keys_and_columns() -> None:
    assert USER.keys == ("id", "username", "email")
    assert ORDER.keys == ("id",)
    assert USER.columns[:4] == ("id", "username", "email", "rating")
    assert {"version", "created_on", "updated_on"} <= set(ORDER.columns)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (UserCreate(username="Ann", email="a@b.de"), "user:username=ann"),
        (OrderCreate(user_id=7), "user:id=7"),
        (OrderCreate.model_validate({"user": {"email": "A@b.de"}}), "user:email=a@b.de"),
    ],
)
def test_a_create_is_ordered_with_what_it_belongs_to(data: Any, key: str) -> None:
    entity = USER if isinstance(data, UserCreate) else ORDER

    assert entity.key_of_new(data) == key


@pytest.mark.parametrize("entity", [USER, ORDER])
def test_a_payload_of_ones_own_that_names_no_row_has_no_key(entity: Entity) -> None:
    assert entity.key_of_new(Payload()) is None


@given(st.text(min_size=1, max_size=10))
def test_two_names_of_one_row_share_their_key(name: str) -> None:
    for other in (name.upper(), name.lower()):
        if other.lower() == name.lower():
            assert USER.ordering_key("email", name) == USER.ordering_key("email", other)


def test_no_two_entities_share_a_key() -> None:
    assert USER.ordering_key("id", 1) != ORDER.ordering_key("id", 1)
    assert USER.ordering_key("id", 1) != USER.ordering_key("username", "1")


def test_several_modules_may_declare_entities(module: ModuleType) -> None:
    module.__dict__["ENTITIES"] = (ORDER,)
    sys.modules[module.__name__] = module
    other = ModuleType("more_entities_of_a_test")
    other.__dict__["ENTITIES"] = (USER,)
    sys.modules[other.__name__] = other
    try:
        registry = load_registry(f" {module.__name__} ,, {other.__name__},")
    finally:
        del sys.modules[other.__name__]

    assert [entity.name for entity in registry] == ["order", "user"]


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ("no.such.module", "cannot import 'no.such.module': No module named 'no'. Install"),
        ("worker.entities,nosuch", "cannot import 'nosuch': No module named 'nosuch'. Install"),
        ("worker.entities.nosuch", "cannot import 'worker.entities.nosuch': No module"),
        ("shop/entities.py", "'shop/entities.py' is no name of a Python module"),
        ("worker.entities:ENTITIES", "'worker.entities:ENTITIES' is no name of a Python module"),
        (".entities", "'.entities' is no name of a Python module"),
        ("worker..entities", "'worker..entities' is no name of a Python module"),
        ("worker.core.errors", "module 'worker.core.errors' has no ENTITIES"),
    ],
)
def test_a_module_that_cannot_be_used_is_told_in_one_line(modules: str, words: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load_registry(modules)
    assert str(caught.value).startswith(f"WORKER_ENTITIES: {words}")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_no_python_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_of_a_test.py").write_text("ENTITIES = (\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Misconfigured, match=r"cannot import 'broken_of_a_test': .*line 1"):
        load_registry("broken_of_a_test")


@pytest.mark.parametrize("wrong", [str, "user", None])
def test_what_is_no_entity_is_told(module: ModuleType, wrong: object) -> None:
    module.__dict__["ENTITIES"] = (USER, wrong)
    with pytest.raises(Misconfigured, match=r"WORKER_ENTITIES: .* must be entities") as caught:
        load_registry(module.__name__)
    assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("declared", [None, (), USER, "user"])
def test_a_module_without_entities_is_told(module: ModuleType, declared: object) -> None:
    if declared is not None:
        module.__dict__["ENTITIES"] = declared
    with pytest.raises(Misconfigured, match="'entities_of_a_test' has no ENTITIES"):
        load_registry(module.__name__)


@pytest.mark.parametrize("modules", ["", " ", ",", " , "])
def test_no_modules_at_all_are_told(modules: str) -> None:
    with pytest.raises(Misconfigured, match="WORKER_ENTITIES"):
        load_registry(modules)


def test_an_entity_declared_twice_is_told() -> None:
    with pytest.raises(Misconfigured, match=r"declares an entity twice: user$"):
        Registry([USER, ORDER, USER])
    with pytest.raises(Misconfigured, match="twice"):
        load_registry("worker.entities,worker.entities")


def test_every_row_has_a_version_and_times() -> None:
    for entity in REGISTRY:
        assert issubclass(entity.model, Row)
        assert {"id", "version", "created_on", "updated_on"} <= set(entity.columns)
