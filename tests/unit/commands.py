"""Commands of every kind, well and nearly so, whose verdict JSON Schema can tell as well."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

NO_TEXTS: tuple[Any, ...] = (None, True, 0, 1.5, [], {}, ["ann"])
TEXTS = (
    *("ann", "ä", "😀", "e\u0301", "a b", "\ufeffx", "x\u200b", "-", "null"),
    *("", " ", " ann", "ann ", "ann\u00a0", "\u2003ann", "ann\u3000", "\u2028", "\u1680x"),
    *("a\nb", "ann\n", "\tann", "a\x7f", "a\x85b", "\x1b[31m", "a\x1f"),
    *("a\x00b", "\x00", "\ud800", "a\udfff", "\udc00\ud800"),
    *("x" * 150, "x" * 151, "😀" * 150, "x" * 200, "x" * 201, "x" * 1_000, "x" * 1_001),
)
ADDRESSES = (
    *("ann@example.com", "Ann@EXAMPLE.com", "ä@example.com", "a+b@x.example"),
    *("", "@", " ann@example.com", "ann@example.com\n", "ann@example.com\u00a0"),
    *("ann\x00@example.com", f"ann@{'x' * 250}.com", "ann\ud800@example.com"),
)
WHOLE = (1, 2, 42, 2**31 - 1, 1.0, 2.0, 3e0, 2**31, 2**53, 0, 0.0, -1, -1.0, 1.5, 1e300, 10**400)
HUGE = (2**63 - 1, 2**63, 1e18, 1e19)
"""Whole numbers of which languages without integers know only the neighbours."""
NO_NUMBERS: tuple[Any, ...] = (None, True, False, "1", "1.0", [], {})
NUMBERS = (4, 4.5, -0.0, 1e-320, 1.7976931348623157e308, -1e308, 10**308, 10**309, -(10**400))


def commands(*, huge: bool = True) -> Strategy:
    """Bodies of commands; with `huge` whole numbers that are no doubles, too."""
    texts = st.sampled_from((*TEXTS, *NO_TEXTS)) | st.text(max_size=5)
    whole = st.sampled_from((*WHOLE, *NO_NUMBERS, *(HUGE if huge else ())))
    key = _some(id=whole, username=texts, email=st.sampled_from((*ADDRESSES, None, 7)), other=texts)
    user = {
        "username": texts,
        "email": st.sampled_from((*ADDRESSES, None, 7)),
        "rating": st.sampled_from((*NUMBERS, *NO_NUMBERS)),
    }
    order = {
        "user_id": whole,
        "user": key | texts,
        "is_completed": st.sampled_from((True, False, None, 1, "true")),
    }
    attributes: dict[str, Strategy] = {
        name: st.sampled_from(("x", 1, None, "a\x00", {})) for name in ("source", "subject", "time")
    }
    others = st.dictionaries(
        st.sampled_from(("tenant", "x" * 40, "x" * 41, "Tenant", "a_b", "a\n", "", "ä", "\x00")),
        st.sampled_from((None, "eu", "\ud800", 1)),
        max_size=2,
    )
    names = {"expected_version": whole, "expectedversion": whole}
    version = st.fixed_dictionaries({}, optional=names)
    known = {
        "id": texts,
        "key": texts,
        "target": st.one_of(key, key, texts),
        "data": st.one_of(_some(**user), _some(**order), _some(**user, **order), texts),
        "specversion": st.sampled_from(("1.0", None)),
        **attributes,
    }
    types = st.sampled_from(
        [
            f"{entity}.{verb}"
            for entity in ("user", "order")
            for verb in ("create", "update", "delete")
        ]
    )
    base = st.fixed_dictionaries({"type": types}, optional=known)
    return st.one_of(
        _good(),
        st.tuples(_good(), base, st.sets(st.sampled_from(sorted(known)), max_size=2)).map(_mixed),
        st.tuples(base, version, others).map(lambda parts: parts[0] | parts[1] | parts[2]),
        st.tuples(_good(), version, others).map(lambda parts: parts[0] | parts[1] | parts[2]),
    )


def _mixed(parts: tuple[dict[str, Any], dict[str, Any], set[str]]) -> dict[str, Any]:
    """A good command with a few members of another one."""
    good, other, names = parts
    return good | {name: other[name] for name in names if name in other}


def _good() -> Strategy:
    ann = {"username": "ann", "email": "ann@example.com"}
    return st.sampled_from(
        [
            {"type": "user.create", "data": ann},
            {"type": "user.create", "data": ann | {"rating": 4.5}, "id": "x", "key": "k"},
            {"type": "user.update", "target": {"id": 1.0}, "data": {"rating": None}},
            {"type": "user.update", "target": {"id": 1}, "data": ann, "expected_version": 2.0},
            {"type": "user.delete", "target": {"username": "ann"}, "data": {}},
            {"type": "order.create", "data": {"user_id": 7.0}, "specversion": "1.0", "tenant": "e"},
            {"type": "order.create", "data": {"user": {"id": 7.0}, "is_completed": True}},
            {"type": "order.update", "target": {"id": 1}, "data": {"user": {"username": "ann"}}},
            {"type": "order.delete", "target": {"id": 1}, "expectedversion": 3},
        ]
    )


def _some(**members: Strategy) -> Strategy:
    """An object with any of these members, most often one or two."""
    names = st.lists(st.sampled_from(sorted(members)), max_size=3, unique=True)
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries({name: members[name] for name in chosen})
    )
