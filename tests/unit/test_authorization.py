"""Who may send what: by the account that the broker has vouched for, else by nobody's rights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import REGISTRY, delivery, is_up, make_codec
from worker.codec.authorization import Authorization
from worker.core.backoff import Backoff
from worker.core.errors import Misconfigured
from worker.core.messages import (
    REDRIVE_HEADER,
    SENDER_HEADER,
    Command,
    Disallowed,
    Job,
    Refused,
    Rejected,
)
from worker.database.engine import Sessions
from worker.processing.processor import Processor
from worker.settings.settings import Settings, load_settings

CODEC = make_codec()
TYPES = ["user.create", "user.delete", "order.create"]
RULES = {"shop": ["user.*", "order.create"], "mail": ["user.create"], "*": ["order.create"]}


def sent(type_: str, user_id: str | None) -> Any:
    body = {"id": "1", "type": type_, "target": {"id": 1}, "key": "k"}
    if type_.endswith("create"):
        body = {"id": "1", "type": type_, "data": {"username": "a", "email": "a@example.com"}}
    return CODEC.decode(delivery(body, user_id=user_id))


def is_barred(type_: str, user_id: str | None, rules: dict[str, list[str]] = RULES) -> bool:
    judged = Authorization(rules, REGISTRY.types).judge(sent(type_, user_id))
    return isinstance(judged, Disallowed)


@pytest.mark.parametrize(
    ("account", "allowed"),
    [
        ("shop", {"user.create", "user.delete", "order.create"}),
        ("mail", {"user.create", "order.create"}),
        ("stranger", {"order.create"}),
        ("SHOP", {"order.create"}),
        ("*", {"order.create"}),
        (None, {"order.create"}),
    ],
)
def test_each_account_may_send_what_is_its_own_and_everybodys(
    account: str | None, allowed: set[str]
) -> None:
    assert {type_ for type_ in TYPES if not is_barred(type_, account)} == allowed


def test_without_rules_whoever_may_publish_may_send_all() -> None:
    item = sent("user.create", None)

    assert Authorization(None, REGISTRY.types).judge(item) is item


def test_rules_that_are_empty_allow_nothing() -> None:
    assert is_barred("user.create", "shop", {})


@pytest.mark.parametrize("body", ["", "{", {"type": "user.fly"}, "[" * 1000])
def test_what_has_no_type_is_told_to_those_who_may_send_anything(body: Any) -> None:
    authorization = Authorization({"shop": ["user.create"]}, REGISTRY.types)

    for account, kind in (("shop", Rejected), ("stranger", Disallowed), (None, Disallowed)):
        judged = authorization.judge(CODEC.decode(delivery(body, user_id=account)))
        assert isinstance(judged, kind)


def test_an_invalid_command_of_a_barred_type_is_told_nothing_but_that() -> None:
    item = CODEC.decode(delivery({"type": "user.delete", "data": {"x": 1}}, user_id="mail"))

    judged = Authorization(RULES, REGISTRY.types).judge(item)

    assert isinstance(judged, Disallowed)
    assert [fault.code for fault in judged.problem.errors] == ["forbidden"]
    assert judged.envelope.key is None


@given(st.text(max_size=30), st.sampled_from(TYPES))
def test_no_name_of_an_account_is_mistaken_for_another(account: str, type_: str) -> None:
    allowed = account in {"shop", "mail"} or type_ == "order.create"

    assert is_barred(type_, account) is not allowed or account == "mail"


@pytest.mark.parametrize("pattern", ["user.fly", "users.*", "user", "*.create", "", "user.", "**"])
def test_a_rule_that_allows_nothing_is_told(pattern: str) -> None:
    with pytest.raises(Misconfigured, match=r"WORKER_AUTHORIZATION: .*'shop' allows nothing"):
        Authorization({"shop": [pattern]}, REGISTRY.types)


OPERATORS = RULES | {"clerk": ["user.create"], "ops": ["redrive"], "boss": ["*"]}
ACCOUNTS = ["shop", "mail", "clerk", "ops", "boss", "stranger", None]


def sent_back(type_: str, first: object, again: str | None) -> Any:
    """What becomes of a dead letter of the first account that the other sends back."""
    item = sent(type_, again)
    headers = {REDRIVE_HEADER: True} | ({} if first is None else {SENDER_HEADER: first})
    came = replace(item.envelope.delivery, headers=headers)
    item = replace(item, envelope=replace(item.envelope, delivery=came))
    return Authorization(OPERATORS, REGISTRY.types).judge(item)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("again", ACCOUNTS)
@pytest.mark.parametrize("first", ACCOUNTS)
def test_what_is_sent_back_is_judged_by_who_sent_it_first(
    first: str | None, again: str | None, type_: str
) -> None:
    may_first = not is_barred(type_, first, OPERATORS)
    may_again = not is_barred(type_, again, OPERATORS)
    judged = sent_back(type_, first, again)

    speaks_for_others = again in ("ops", "boss")
    is_judged_well = not isinstance(judged, Disallowed)
    assert is_judged_well is (may_first and (speaks_for_others or may_again))
    # A name that nobody vouches for is not passed on.
    if is_judged_well:
        assert judged.envelope.sender == (first if speaks_for_others else again)


def test_it_says_by_whom_it_was_judged() -> None:
    for first, again, says in (
        ("mail", "boss", "judged as first sent: the account 'mail' may not send user.delete"),
        (None, "boss", "judged as first sent: user.delete may not be sent by just anybody"),
        ("shop", "clerk", "may not redrive: the account 'clerk' may not send user.delete"),
    ):
        judged = sent_back("user.delete", first, again)
        assert isinstance(judged, Disallowed)
        assert says in judged.problem.detail


@given(st.none() | st.integers() | st.binary() | st.text(max_size=20) | st.just(["boss"]))
def test_a_forged_name_lends_no_rights(forged: object) -> None:
    for account in ("mail", "stranger", None):
        assert isinstance(sent_back("user.delete", forged, account), Disallowed)
        item = sent("user.delete", account)
        came = replace(item.envelope.delivery, headers={SENDER_HEADER: forged})
        item = replace(item, envelope=replace(item.envelope, delivery=came))
        assert isinstance(Authorization(OPERATORS, REGISTRY.types).judge(item), Disallowed)


def test_who_may_only_redrive_sends_nothing_of_its_own() -> None:
    rules = {"ops": ["redrive"]}
    garbage = CODEC.decode(delivery("{", user_id="ops"))

    assert isinstance(Authorization(rules, REGISTRY.types).judge(garbage), Disallowed)
    assert is_barred("user.create", "ops", rules)


async def test_what_is_barred_never_comes_near_the_database() -> None:
    def no_session() -> None:
        raise AssertionError("the database was asked")

    processor = Processor(
        cast(Sessions, type("None", (), {"begin": staticmethod(no_session)})()),
        REGISTRY,
        CODEC,
        max_attempts=1,
        backoff=Backoff(0.001, 0.001),
        max_deliveries=10,
        budget_seconds=1,
        is_up=is_up,
    )
    barred = Authorization({}, REGISTRY.types).judge(sent("user.create", "shop"))

    (outcome,) = await processor.process([Job(barred)])

    assert isinstance(outcome, Refused)
    assert outcome.answer.type == "user.create.rejected"
    assert b'"code":"forbidden"' in outcome.answer.body


async def test_those_beside_what_is_barred_keep_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def process(_: Processor, jobs: list[Job]) -> list[Any]:
        assert all(isinstance(job.item, Command) for job in jobs)
        return [job.envelope.id for job in jobs]

    monkeypatch.setattr(Processor, "_process", process)
    processor = Processor(
        cast(Sessions, None),
        REGISTRY,
        CODEC,
        max_attempts=1,
        backoff=Backoff(0.001, 0.001),
        max_deliveries=10,
        budget_seconds=1,
        is_up=is_up,
    )
    authorization = Authorization({"shop": ["user.create"]}, REGISTRY.types)
    data = {"username": "a", "email": "a@example.com"}
    jobs = [
        Job(
            authorization.judge(
                CODEC.decode(
                    delivery({"id": str(n), "type": "user.create", "data": data}, user_id=account)
                )
            )
        )
        for n, account in enumerate(["shop", None, "shop", "mail", "shop"])
    ]

    outcomes: list[Any] = list(await processor.process(jobs))

    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["0", "2", "4"]
    assert [isinstance(outcome, Refused) for outcome in outcomes] == [
        False,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    "value", ["shop", "[]", '"*"', '{"shop": "user.*"}', '{"shop": [1]}', '{"": ["*"]}', "{]"]
)
def test_rules_of_another_form_are_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORKER_AUTHORIZATION", value)

    with pytest.raises(Misconfigured, match=r"WORKER_AUTHORIZATION.*must look like") as caught:
        load_settings()

    assert len(str(caught.value).splitlines()) == 1


def test_rules_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_AUTHORIZATION", '{"Shop": ["user.*"], "*": []}')

    assert load_settings().authorization == {"Shop": ("user.*",), "*": ()}
    monkeypatch.delenv("WORKER_AUTHORIZATION")
    assert Settings().authorization is None
