"""What the members of a query mean: what it asks for, or everything that is wrong with it."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, cast

from worker.codec.cursor import read_cursor
from worker.codec.parser import Reading
from worker.codec.validation import MAX_FAULTS, pointer_to, problem_of
from worker.codec.where_parser import WhereParser, unknown
from worker.core.messages import Query, Rejected
from worker.core.queries import (
    EVERYTHING,
    Aggregate,
    Function,
    Get,
    Include,
    OrderBy,
    Page,
)
from worker.core.query_schema import QuerySchemas
from worker.core.registry import Entity

DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_INCLUDE_DEPTH = 3
_GET_MEMBERS = ("fields", "include")
_LIST_MEMBERS = (
    "where",
    "order_by",
    "limit",
    "after",
    "fields",
    "include",
    "aggregate",
    "group_by",
)
_FUNCTIONS = ("avg", "max", "min", "sum")
_DATA = ("data",)


class QueryReading(Reading):
    """One query on its way from members to what it asks for."""

    def read(self, schemas: QuerySchemas, entity: Entity, verb: str) -> Query | Rejected:
        """The query, or what is wrong with it."""
        if self._unstorable:
            self._refuse_unstorable()
        self._check_members()
        if self._members.get("expected_version") is not None:
            self._fault("/expected_version", "not_allowed", "must not be given for a query")
        asked: Get | Page | None = None
        if not self._unstorable:
            self._schemas, self._schema = schemas, schemas[entity.name]
            data = self._members.get("data")
            if data is not None and not isinstance(data, dict):
                self._fault("/data", "type", "must be an object")
            else:
                asked = self._get(entity, data or {}) if verb == "get" else self._page(data or {})
        envelope = self.envelope()
        if envelope.reply_to is None and not any(it.pointer == "/reply_to" for it in self._faults):
            detail = "is missing: a query is answered to the AMQP property reply_to alone"
            self._fault("/reply_to", "missing", detail)
        if self._faults or asked is None:
            return Rejected(envelope, problem_of("invalid", self._faults, self._untold))
        return Query(envelope, entity.name, asked)

    def _fault(self, pointer: str, code: str, detail: str) -> None:
        if len(self._faults) < MAX_FAULTS:
            super()._fault(pointer, code, detail)
        else:
            self._untold += 1

    def _get(self, entity: Entity, data: dict[str, Any]) -> Get | None:
        self._refuse_unknown(_DATA, data.keys() - set(_GET_MEMBERS), _GET_MEMBERS)
        target = self._target_of(entity)
        shown = self._fields(data.get("fields"))
        includes = self._includes(data.get("include"))
        return None if target is None else Get(target, shown, includes)

    def _page(self, data: dict[str, Any]) -> Page:
        self._refuse_unknown(_DATA, data.keys() - set(_LIST_MEMBERS), _LIST_MEMBERS)
        if self._members.get("target") is not None:
            self._fault("/target", "not_allowed", "must not be given for this query; say where")
        aggregate = self._aggregate(data)
        where = data.get("where")
        parser = WhereParser(self._schemas, self._fault)
        order = self._order(data.get("order_by"), aggregate)
        shape = self._shape(data)
        return Page(
            where=EVERYTHING
            if where is None
            else parser.parse(self._schema, where, (*_DATA, "where")),
            order=order,
            limit=self._limit(data.get("limit")),
            fields=self._fields(data.get("fields")),
            includes=self._includes(data.get("include")),
            aggregate=aggregate,
            after=self._after(data.get("after"), order, shape),
            shape=shape,
        )

    def _shape(self, data: dict[str, Any]) -> bytes:
        meaning: list[Any] = [self._schema.entity.name]
        meaning += [data.get(name) for name in ("where", "order_by", "aggregate", "group_by")]
        return blake2b(json.dumps(meaning, sort_keys=True).encode(), digest_size=16).digest()

    def _limit(self, limit: Any) -> int:
        if limit is None:
            return DEFAULT_LIMIT
        if isinstance(limit, float) and limit.is_integer():
            limit = int(limit)
        if type(limit) is int and 1 <= limit <= MAX_LIMIT:
            return limit
        self._fault("/data/limit", "range", f"must be a whole number from 1 to {MAX_LIMIT}")
        return DEFAULT_LIMIT

    def _names(self, value: Any, member: str) -> list[str]:
        """The texts of a list, each once."""
        pointer = f"/data/{member}"
        if value is None:
            return []
        if not isinstance(value, list) or not value:
            self._fault(pointer, "type", "must be a list of names, and not empty")
            return []
        if any(not isinstance(it, str) for it in value):
            self._fault(pointer, "type", "must hold nothing but texts")
            return []
        if len(set(value)) < len(value):
            self._fault(pointer, "twice", "names something twice")
        if len(value) > MAX_LIMIT:
            self._fault(pointer, "too_large", f"holds more than {MAX_LIMIT} names")
            return []
        return value

    def _known(self, name: str, known: list[str], *path: str | int) -> bool:
        if name in known:
            return True
        self._fault(pointer_to((*_DATA, *path)), "unknown", unknown(name, known))
        return False

    def _fields(self, value: Any) -> tuple[str, ...]:
        known = list(self._schema.fields)
        names = self._names(value, "fields")
        for number, name in enumerate(names):
            self._known(name, known, "fields", number)
        return tuple(names) or tuple(known)

    def _order(self, value: Any, aggregate: Aggregate | None) -> tuple[OrderBy, ...]:
        """The order that is asked for, made one of its own for each row, or each group."""
        if aggregate is not None:
            known, last = list(aggregate.group_by), aggregate.group_by
        else:
            known = [name for name, it in self._schema.fields.items() if it.is_sortable]
            last = ("id",)
        steps = []
        for number, name in enumerate(self._names(value, "order_by")):
            if self._known(name.removeprefix("-"), known, "order_by", number):
                steps.append(OrderBy(name.removeprefix("-"), name.startswith("-")))
        named = [step.field for step in steps]
        if len(set(named)) < len(named):
            self._fault("/data/order_by", "twice", "names a field twice")
        return (*steps, *(OrderBy(name) for name in last if name not in named))

    def _after(
        self, cursor: Any, order: tuple[OrderBy, ...], shape: bytes
    ) -> tuple[Any, ...] | None:
        if cursor is None:
            return None
        position = read_cursor(shape, cursor) if isinstance(cursor, str) else None
        if position is not None and len(position) == len(order):
            fields = [self._schema.fields[step.field] for step in order]
            pairs = zip(fields, position, strict=True)
            try:
                return tuple(None if it is None else field.read(it) for field, it in pairs)
            except ValueError:
                pass
        detail = "is no cursor of this query: pass on the `next` of its answer, and ask the same"
        self._fault("/data/after", "cursor", detail)
        return None

    def _includes(self, value: Any) -> tuple[Include, ...]:
        tree: dict[str, Any] = {}
        for number, path in enumerate(self._names(value, "include")):
            here, schema, passed = tree, self._schema, [self._schema.entity.name]
            for name in path.split("."):
                if not self._known(name, list(schema.relations), "include", number):
                    break
                schema = self._schemas[schema.relations[name].entity]
                if schema.entity.name in passed and len(passed) > 1:
                    detail = f"loops: it leads to {schema.entity.name} again"
                    self._fault(f"/data/include/{number}", "loop", detail)
                    break
                passed.append(schema.entity.name)
                if len(passed) > MAX_INCLUDE_DEPTH + 1:
                    detail = f"follows more than {MAX_INCLUDE_DEPTH} relations"
                    self._fault(f"/data/include/{number}", "too_large", detail)
                    break
                here = here.setdefault(name, {})
        return _as_includes(tree)

    def _aggregate(self, data: dict[str, Any]) -> Aggregate | None:
        value, groups = data.get("aggregate"), data.get("group_by")
        if value is None:
            if groups is not None:
                self._fault("/data/group_by", "not_allowed", "needs aggregate beside it")
            return None
        for name in ("fields", "include"):
            if data.get(name) is not None:
                self._fault(f"/data/{name}", "not_allowed", "must not stand beside aggregate")
        sortable = [name for name, it in self._schema.fields.items() if it.is_sortable]
        group_by = self._names(groups, "group_by")
        for number, name in enumerate(group_by):
            self._known(name, sortable, "group_by", number)
        group_by = [name for name in group_by if name in sortable]
        if not isinstance(value, dict) or not value:
            detail = 'must be an object such as {"count": true, "avg": ["rating"]}'
            self._fault("/data/aggregate", "type", detail)
            return Aggregate(count=True, functions=(), group_by=tuple(group_by))
        self._refuse_unknown(
            (*_DATA, "aggregate"), value.keys() - {"count", *_FUNCTIONS}, ("count", *_FUNCTIONS)
        )
        if value.get("count", True) is not True:
            self._fault("/data/aggregate/count", "type", "must be true, or left out")
        functions: list[tuple[Function, str]] = []
        for function in _FUNCTIONS:
            if function in value:
                functions += self._function(cast(Function, function), value[function])
        return Aggregate("count" in value, tuple(functions), tuple(group_by))

    def _function(self, function: Function, names: Any) -> list[tuple[Function, str]]:
        total = function in ("avg", "sum")
        known = [
            name
            for name, it in self._schema.fields.items()
            if (it.is_number if total else it.is_measured)
        ]
        names = self._names([] if names is None else names, f"aggregate/{function}")
        for number, name in enumerate(names):
            self._known(name, known, "aggregate", function, number)
        return [(function, name) for name in names]


def _as_includes(tree: dict[str, Any]) -> tuple[Include, ...]:
    return tuple(Include(name, _as_includes(inner)) for name, inner in tree.items())
