"""What the members of a message mean: a command, or everything that is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence, Set
from functools import cache
from hashlib import sha256
from heapq import nsmallest
from typing import Any

from pydantic import BaseModel, ValidationError

from worker.codec.strict_json import Path
from worker.codec.validation import (
    MAX_FAULTS,
    UNPRINTABLE,
    faults_of,
    pointer_to,
    problem_of,
    with_whole_numbers,
)
from worker.core.messages import Command, Delivery, Envelope, ErrorDetail, Item, Rejected, Target
from worker.core.payloads import Key
from worker.core.registry import Entity, Registry, Verb

OUR_MEMBERS = frozenset({"id", "type", "data", "target", "expected_version", "key"})

# CloudEvents 1.0.2, sections "REQUIRED Attributes" and "OPTIONAL Attributes", and its distributed
# tracing extension; accepted, and ignored where not used.
CLOUDEVENTS_MEMBERS = frozenset(
    {
        "specversion",
        "source",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "traceparent",
        "tracestate",
    }
)
_KNOWN_MEMBERS = OUR_MEMBERS | CLOUDEVENTS_MEMBERS
# CloudEvents 1.0.2, "Attribute Naming Convention": extensions are lower-case letters and digits.
_EXTENSION = re.compile(r"[a-z0-9]{1,40}")
# W3C Trace Context, section 3.2: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

MAX_VERSION = 2**31 - 1

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


class Reading:
    """One message on its way from members to a command; collects everything that is wrong."""

    def __init__(
        self,
        registry: Registry,
        own_queues: frozenset[str],
        delivery: Delivery,
        members: dict[str, Any],
        unstorable: Sequence[Path] = (),
        *,
        takes_queries: bool = True,
    ) -> None:
        self._delivery = delivery
        self._members = members
        self._unstorable = unstorable
        self._own_queues = own_queues
        self._faults: list[ErrorDetail] = []
        self._untold = 0
        self._takes_queries = takes_queries
        type_ = members.get("type")
        if type_ is None:  # a null member is an absent one
            type_ = delivery.type
        self._type = type_
        self._registry = registry
        self._found = registry.find(type_) if isinstance(type_, str) else None
        self.query = (
            registry.find_query(type_)
            if takes_queries and self._found is None and isinstance(type_, str)
            else None
        )
        """The entity and verb of a query, which is read by `QueryReading`."""

    def item(self) -> Item:
        """The command, or what is wrong with it."""
        if self._unstorable:
            self._refuse_unstorable()
        self._check_members()
        target, data, version = None, None, None
        if self._found is None:
            self._refuse_type()
        elif not self._unstorable:  # no payload's own rules need to bear such text
            entity, verb = self._found[0], self._found[0].verbs[self._found[1]]
            target = self._target(entity, verb)
            data = self._data(verb)
            version = self._expected_version(verb)
        envelope = self.envelope(self._key(target, data))
        if self._faults:
            code = "invalid" if self._found or self._unstorable else "unknown_type"
            return Rejected(envelope, problem_of(code, self._faults, self._untold))
        assert self._found is not None
        entity, name = self._found
        return Command(envelope, entity.name, name, data, target, version)

    def envelope(self, key: str | None = None) -> Envelope:
        """Who sent what; also checks the properties that the answer depends on."""
        id_ = self._members.get("id")
        if id_ is None:
            id_ = self._delivery.message_id
            if "message_id" in self._delivery.lost:  # without it, it could have two effects
                self._fault("/id", "encoding", "the AMQP property message_id is not UTF-8")
        id_ = self._text("id", id_, 200)
        found = self._found or self.query
        correlation = self._text("correlation_id", self._delivery.correlation_id, 255)
        return Envelope(
            delivery=self._delivery,
            id=id_,
            type=f"{found[0].name}.{found[1]}" if found else None,
            key=key,
            digest=self._digest(),
            correlation_id=correlation or id_,
            reply_to=self._reply_to(),
            sender=self._delivery.user_id,
            trace=self._trace(),
        )

    def unchecked_envelope(self) -> Envelope:
        """Who sent what, with nothing asked of the entity's own code."""
        return self.envelope(self._key(None, None))

    def _digest(self) -> bytes:
        """Equal for commands that mean the same, whatever their spacing or envelope."""
        if not self._members:
            return sha256(self._delivery.body).digest()
        get = self._members.get
        meaning = [self._type, get("target"), get("data"), get("expected_version")]
        return sha256(_canonical(meaning).encode()).digest()

    def _fault(self, pointer: str, code: str, detail: str) -> None:
        self._faults.append(ErrorDetail(pointer, code, detail))

    def _text(self, name: str, value: object, longest: int) -> str | None:
        """A string that may stand in an event's attribute, or `None`."""
        if value is None:
            return None
        if not isinstance(value, str) or not 1 <= len(value) <= longest:
            self._fault(f"/{name}", "length", f"must be a string of 1 to {longest} characters")
            return None
        if UNPRINTABLE.search(value):
            if (name,) not in self._unstorable:
                self._fault(f"/{name}", "control", "must not contain control characters")
            return None
        return value

    def _reply_to(self) -> str | None:
        reply_to = self._text("reply_to", self._delivery.reply_to, 255)
        # Below them are partitions, those of another number than this worker's included.
        if reply_to and any(
            reply_to == queue or reply_to.startswith(f"{queue}.") for queue in self._own_queues
        ):
            self._fault("/reply_to", "own_queue", "must not be one of the worker's own queues")
            return None
        return reply_to

    def _trace(self) -> dict[str, str]:
        headers = self._delivery.headers
        parent = headers.get("traceparent") or self._members.get("traceparent")
        if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
            return {}
        state = headers.get("tracestate") or self._members.get("tracestate")
        if not isinstance(state, str) or not 1 <= len(state) <= 512 or not state.isprintable():
            return {"traceparent": parent}
        return {"traceparent": parent, "tracestate": state}

    def _check_members(self) -> None:
        members = self._members
        if members.keys() <= _KNOWN_MEMBERS:
            return
        if "expectedversion" in members:
            self._take_expectedversion(members)
        unknown = {
            name
            for name in members.keys() - _KNOWN_MEMBERS - {"expectedversion"}
            if members[name] is not None
        }
        if members.get("specversion") is not None:
            unknown = {name for name in unknown if not _EXTENSION.fullmatch(name)}
        self._refuse_unknown((), unknown, OUR_MEMBERS)

    def _take_expectedversion(self, members: dict[str, Any]) -> None:
        """Names of CloudEvents' attributes have no underscores."""
        attribute, member = members["expectedversion"], members.get("expected_version")
        if member is None:
            self._members = members | {"expected_version": attribute}
        elif attribute is not None:
            self._fault("/expectedversion", "twice", "must not stand beside expected_version")

    def _refuse_unknown(self, path: tuple[str, ...], names: Set[str], known: Iterable[str]) -> None:
        """Name the first few: a hostile message may hold a hundred thousand of them."""
        if names:
            detail = f"is not known here; there are: {', '.join(sorted(known))}"
            for name in nsmallest(MAX_FAULTS, names):
                self._fault(pointer_to((*path, name)), "unknown", detail)
            self._untold += max(0, len(names) - MAX_FAULTS)

    def _refuse_unstorable(self) -> None:
        for path in self._unstorable[:MAX_FAULTS]:
            detail = "holds U+0000 or half of a surrogate pair, which cannot be stored"
            self._fault(pointer_to(path), "unstorable", detail)
        self._untold += max(0, len(self._unstorable) - MAX_FAULTS)

    def _refuse_type(self) -> None:
        queries = self._registry.query_types if self._takes_queries else ()
        known = ", ".join((*self._registry.types, *queries))
        if self._type is None and "message_type" in self._delivery.lost:
            detail = f"stands in the AMQP property, which is not UTF-8. Known: {known}"
        elif self._type is None:
            detail = f"is missing; give it in the body or as the AMQP property. Known: {known}"
        else:
            detail = f"is none of the known types: {known}"
        self._fault("/type", "unknown_type", detail)

    def _target(self, entity: Entity, verb: Verb) -> Target | None:
        if not verb.targeted:
            if self._members.get("target") is not None:
                self._fault("/target", "not_allowed", "must not be given for this command")
            return None
        return self._target_of(entity)

    def _target_of(self, entity: Entity) -> Target | None:
        value = self._members.get("target")
        names = ", ".join(entity.keys)
        if not isinstance(value, dict):
            self._fault("/target", "missing", f"must be an object with exactly one of: {names}")
            return None
        key = self._validated("target", entity.target, value)
        return key.to_target() if isinstance(key, Key) else None

    def _data(self, verb: Verb) -> BaseModel | None:
        value = self._members.get("data")
        if verb.payload is None:
            if value not in (None, {}):
                self._fault("/data", "not_allowed", "must not be given for this command")
            return None
        if not isinstance(value, dict):
            self._fault("/data", "missing", "must be an object")
            return None
        if verb.targeted and not value:
            self._fault("/data", "empty", "names no field to change")
            return None
        return self._validated("data", verb.payload, value)

    def _validated(
        self, member: str, model: type[BaseModel], value: dict[str, Any]
    ) -> BaseModel | None:
        if not value.keys() <= _fields(model):
            unknown = value.keys() - _fields(model)
            self._refuse_unknown((member,), unknown, model.model_fields)
            value = {name: value[name] for name in value.keys() - unknown}
        try:
            return model.model_validate(value)
        except ValidationError as error:
            whole = with_whole_numbers(value, error)
            if whole is not None:
                return self._validated(member, model, whole)
            self._faults += faults_of(error, member)
            return None

    def _expected_version(self, verb: Verb) -> int | None:
        value = self._members.get("expected_version")
        if value is None:
            return None
        if type(value) is float and value.is_integer():
            value = int(value)
        if verb.targeted and type(value) is int and 1 <= value <= MAX_VERSION:
            return value
        given = self._members.get("expectedversion") is not None
        pointer = "/expectedversion" if given else "/expected_version"
        if verb.targeted:
            self._fault(pointer, "version", "must be a whole number from 1")
        else:
            self._fault(pointer, "not_allowed", "must not be given for this command")
        return None

    def _key(self, target: Target | None, data: BaseModel | None) -> str | None:
        given = self._members.get("key")
        if given is not None:
            if isinstance(given, str) and 1 <= len(given) <= 1_000:
                return None if ("key",) in self._unstorable else given
            self._fault("/key", "length", "must be a string of 1 to 1000 characters")
            return None
        if self._found is None:
            return None
        entity = self._found[0]
        if target is not None:
            return entity.ordering_key(target.field, target.value)
        return None if data is None else entity.key_of_new(data)


@cache
def _fields(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(model.model_fields)
