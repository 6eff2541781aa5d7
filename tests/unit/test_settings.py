"""Settings: each wrong one told by name, none of them telling a secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from worker.core.errors import Misconfigured
from worker.settings.settings import (
    BrokerSettings,
    DatabaseSettings,
    HealthSettings,
    Settings,
    load_settings,
)

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("WORKER_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)  # where there is no .env


def told(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_the_defaults_are_valid_and_as_documented() -> None:
    settings = load_settings()

    assert settings.namespace == "worker"
    assert (settings.database.pool_size, settings.database.max_overflow) == (10, 20)
    assert settings.max_attempts == 5
    assert settings.shutdown_seconds == 15
    assert settings.ledger_retention_days == 7


def test_a_setting_comes_from_the_environment_or_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("WORKER_LANES=3\nWORKER_BROKER__DECLARE=false\nOTHER=1\n")
    monkeypatch.setenv("WORKER_PREFETCH", "9")
    settings = load_settings()

    assert (settings.lanes, settings.broker.declare, settings.prefetch) == (3, False, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_LANES", "0"),
        ("WORKER_LANES", "many"),
        ("WORKER_GROUP_SIZE", "1001"),
        ("WORKER_GROUP_BUDGET_SECONDS", "0"),
        ("WORKER_PREFETCH", "65536"),
        ("WORKER_MAX_BODY_BYTES", "1"),
        ("WORKER_MAX_ATTEMPTS", "0"),
        ("WORKER_RETRY_BASE_SECONDS", "-1"),
        ("WORKER_RETRY_MAX_SECONDS", "inf"),
        ("WORKER_SHUTDOWN_SECONDS", "nan"),
        ("WORKER_SHUTDOWN_SECONDS", "soon"),
        ("WORKER_LEDGER_RETENTION_DAYS", "0"),
        ("WORKER_NAMESPACE", "with space"),
        ("WORKER_NAMESPACE", "x" * 65),
        ("WORKER_NAMESPACE", "amq#"),
        ("WORKER_LOG_LEVEL", "loud"),
        ("WORKER_LOG_FORMAT", "xml"),
        ("WORKER_HEALTH__PORT", "65536"),
        ("WORKER_BROKER__HEARTBEAT_SECONDS", "1"),
        ("WORKER_BROKER__DECLARE", "perhaps"),
        ("WORKER_BROKER__DELIVERY_LIMIT", "1"),
        ("WORKER_BROKER__EVENTS_MAX_BYTES", "1"),
        ("WORKER_DATABASE__POOL_SIZE", "0"),
        ("WORKER_DATABASE__POOL_TIMEOUT_SECONDS", "0"),
        ("WORKER_DATABASE__MAX_OVERFLOW", "-1"),
    ],
)
def test_a_wrong_value_is_told_by_name_and_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    message = told(monkeypatch, **{name: value})

    assert message.startswith(f"{name}={value!r}: ")
    assert len(message.splitlines()) == 1


def test_every_wrong_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = told(monkeypatch, WORKER_LANES="x", WORKER_BROKER__HEARTBEAT_SECONDS="y")

    assert "WORKER_LANES='x'" in message
    assert "WORKER_BROKER__HEARTBEAT_SECONDS='y'" in message


def test_a_name_that_does_not_exist_in_a_section_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, WORKER_DATABASE__POOLSIZE="5") == (
        "WORKER_DATABASE__POOLSIZE: there is no such setting. "
        "Did you mean WORKER_DATABASE__POOL_SIZE?"
    )


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WORKER_DATABASE_URL", "WORKER_DATABASE__URL"),
        ("WORKER_DATABSE__URL", "WORKER_DATABASE__URL"),
        ("WORKER_BROKER_URL", "WORKER_BROKER__URL"),
        ("worker_lane", "WORKER_LANES"),
        ("WORKER_HEALTH_PORT", "WORKER_HEALTH__PORT"),
    ],
)
def test_a_name_that_is_nearly_a_settings_is_told_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, meant: str
) -> None:
    line = f"{name.upper()}: there is no such setting. Did you mean {meant}?"
    assert told(monkeypatch, **{name: SECRET}) == line

    monkeypatch.delenv(name)
    (tmp_path / ".env").write_text(f"{name}={SECRET}\n")
    assert told(monkeypatch) == line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_DATABASE_PORT", "5432"),
        ("WORKER_DATABASE_SERVICE_HOST", "10.0.0.1"),
        # As Kubernetes has it for a service of the name `worker-health`.
        ("WORKER_HEALTH_PORT", "tcp://10.0.0.1:8765"),
        ("MY_WORKER_LANE", "3"),
    ],
)
def test_names_that_are_somebody_elses_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    assert load_settings() == Settings()


def test_a_wrong_name_is_told_even_where_the_right_one_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert told(
        monkeypatch,
        WORKER_DATABASE_URL=f"postgresql://ann:{SECRET}@db/shop",
        WORKER_DATABASE__URL="postgresql+asyncpg://db/shop",
    ) == (
        "WORKER_DATABASE_URL: there is no such setting. Did you mean WORKER_DATABASE__URL? "
        "WORKER_DATABASE__URL is set, too: remove this one"
    )


@pytest.mark.parametrize("name", ["WORKER_DB__URL", "WORKER_LANES__X", "WORKER___", "worker_a__b"])
def test_a_name_with_two_underscores_is_nobody_elses(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert told(monkeypatch, **{name: SECRET}) == f"{name.upper()}: there is no such setting"


def test_wrong_names_and_wrong_values_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"WORKER_LANES": "x", "WORKER_BROKER_URL": "y", "WORKER_DATABASE__POOLSIZE": "1"}
    lines = told(monkeypatch, **wrong).splitlines()

    assert sorted(line.partition(": ")[0] for line in lines) == [
        "WORKER_BROKER_URL",
        "WORKER_DATABASE__POOLSIZE",
        "WORKER_LANES='x'",
    ]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (f"WORKER_LANES=3\n\nWORKER_BROKER__URL {SECRET}\n", 3, "is not of the form NAME=value"),
        (f"# {SECRET}\nWORKER_LANES: {SECRET}\n", 2, "is not of the form NAME=value"),
        (f"\n\n=3{SECRET}\n", 3, "is not of the form NAME=value"),
        (f"if {SECRET}; then\n", 1, "is not of the form NAME=value"),
        (f'A=1\r\nWORKER_X="{SECRET}\r\n', 2, "NAME=value. Has each quote its end?"),
        (f"A='1' {SECRET}\n", 1, "NAME=value. Has each quote its end?"),
        ("A=1\n  export worker_lanes  # none\n", 2, "worker_lanes has no value; write worker_l"),
        (b"A=1\nB=\xff\n", 2, "is not UTF-8"),
    ],
)
def test_a_broken_line_of_the_file_is_told_with_its_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | bytes, line: int, words: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / ".env").write_bytes(data + b"OTHER=1\n")
    message = told(monkeypatch)

    assert message.startswith(f".env, line {line}: ")
    assert words in message
    assert SECRET not in message
    assert len(message.splitlines()) == 1


def test_every_broken_line_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A B\nWORKER_LANES=x\n\nWORKER_LANES\n")

    assert [line.partition(": ")[0] for line in told(monkeypatch).splitlines()] == [
        ".env, line 1",
        ".env, line 4",
    ]


def test_a_file_of_every_form_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "\ufeff# lanes\nexport WORKER_LANES = 3 # three\nWORKER_NAMESPACE='a'\n"
        'WORKER_LOG_LEVEL="debug"\nWORKER_MIGRATIONS=\nexport OTHER\nSEVERAL="1\n2"\n'
    )
    settings = load_settings()

    assert (settings.lanes, settings.namespace, settings.log_level) == (3, "a", "debug")
    assert settings.migrations == ()


def test_folders_of_migrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "packages" / "shop_of_tests"
    for folder in (package / "migrations", tmp_path / "a,b", tmp_path / "own" / "versions"):
        folder.mkdir(parents=True)
    (tmp_path / "own" / "env.py").touch()
    monkeypatch.syspath_prepend(package.parent)

    def folders(value: str) -> list[str]:
        monkeypatch.setenv("WORKER_MIGRATIONS", value)
        return [str(folder) for folder in load_settings().migrations]

    assert folders("") == []
    assert folders("a,b") == ["a,b"]
    assert folders("own, shop_of_tests:migrations,") == ["own", str(package / "migrations")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/nosuch", "there is no folder '/nosuch'"),
        ("own,/nosuch", "there is no folder '/nosuch'"),
        ("nosuch:migrations", "there is no package 'nosuch'"),
        ("tests.nosuch:migrations", "there is no package 'tests.nosuch'"),
        ("json.decoder:migrations", "there is no package 'json.decoder'"),
        (".:x", "there is no package '.'"),
        ("tests:nosuch", "nosuch'"),
        ("file", "there is no folder 'file'"),
        ("own,more", "at most one of the folders"),
        ("bare", "has an env.py, but no folder versions"),
    ],
)
def test_what_is_no_folder_of_migrations_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, words: str
) -> None:
    (tmp_path / "file").touch()
    for name in ("own", "more", "bare"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "env.py").touch()
    for name in ("own", "more"):
        (tmp_path / name / "versions").mkdir()
    message = told(monkeypatch, WORKER_MIGRATIONS=value)

    assert message.startswith(f"WORKER_MIGRATIONS={value!r}: ")
    assert words in message
    assert len(message.splitlines()) == 1


def test_more_lanes_than_the_pool_can_serve_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = told(
        monkeypatch,
        WORKER_LANES="5",
        WORKER_DATABASE__POOL_SIZE="3",
        WORKER_DATABASE__MAX_OVERFLOW="2",
    )

    for part in (
        "WORKER_LANES=5",
        "WORKER_DATABASE__POOL_SIZE",
        "WORKER_DATABASE__MAX_OVERFLOW",
        "= 4",
    ):
        assert part in message


def test_as_many_lanes_as_the_pool_can_serve_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LANES": "4",
        "DATABASE__POOL_SIZE": "3",
        "DATABASE__MAX_OVERFLOW": "2",
    }.items():
        monkeypatch.setenv(f"WORKER_{name}", value)

    assert load_settings().lanes == 4


@pytest.mark.parametrize(
    "value",
    [
        "",
        "rabbit",
        f"http://ann:{SECRET}@rabbit/",
        f"amqp://ann:{SECRET}@/",
        f"amqp://ann:{SECRET}@rabbit:port/",
        f"amqp://ann:{SECRET}@rabbit:99999/",
        f"amqp://ann:{SECRET}@[::1/",
        f"amqp://ann:{SECRET}@rab\u2100bit/",
    ],
)
def test_a_wrong_address_of_the_broker_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    message = told(monkeypatch, WORKER_BROKER__URL=value)

    assert message.startswith("WORKER_BROKER__URL: ")
    assert SECRET not in message


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        ("amqp://rabbit", ["amqp://rabbit"]),
        ("amqp://a/x,amqps://b:5671/x", ["amqp://a/x", "amqps://b:5671/x"]),
        (" amqp://a ,\n amqp://b , amqp://c ", ["amqp://a", "amqp://b", "amqp://c"]),
        ("amqp://ann:pass,word@a,amqp://ann:x@b", ["amqp://ann:pass,word@a", "amqp://ann:x@b"]),
    ],
)
def test_the_broker_may_have_several_addresses(
    monkeypatch: pytest.MonkeyPatch, value: str, urls: list[str]
) -> None:
    monkeypatch.setenv("WORKER_BROKER__URL", value)

    assert load_settings().broker.urls == urls


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (f"amqp://ann:{SECRET}@a/,http://ann:{SECRET}@b/", "address 2 of 2 must look like"),
        (f"amqp://a/,amqp://ann:{SECRET}@/,amqp://c/", "address 2 of 3 must look like"),
        (f"amqp://ann:{SECRET}@a/,", "must look like"),
        (f"amqp://ann:{SECRET}@a,b", "must look like"),
        (f"amqp://ann:{SECRET}@a:5672,b:5672", "must look like"),
        (f"amqp://ann:{SECRET}@a/x,b/x", "must look like"),
    ],
)
def test_a_wrong_one_among_the_addresses_of_the_broker_is_told_by_its_number(
    monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    message = told(monkeypatch, WORKER_BROKER__URL=value)

    assert message.startswith(f"WORKER_BROKER__URL: {says}")
    assert SECRET not in message


@pytest.mark.parametrize(
    "value",
    [
        f"postgresql://ann:{SECRET}@db/shop",
        f"postgresql+psycopg://ann:{SECRET}@db/shop",
        f"postgresql+asyncpg://ann:{SECRET}@db:port/shop",
        f"postgresql+asyncpg://ann:{SECRET}@d\u2100b/shop",
    ],
)
def test_a_wrong_address_of_the_database_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    message = told(monkeypatch, WORKER_DATABASE__URL=value)

    assert message.startswith("WORKER_DATABASE__URL: ")
    assert SECRET not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_BROKER__PASSWORD", SECRET),
        ("WORKER_DATABASE__PASSWORD", SECRET),
        ("WORKER_DATABASE__DSN", f"postgresql://ann:{SECRET}@db/shop"),
        ("WORKER_BROKER", f'"amqp://ann:{SECRET}@rabbit/"'),
        ("WORKER_DATABASE", f"postgresql+asyncpg://ann:{SECRET}@db/shop"),
    ],
)
def test_a_secret_in_the_wrong_place_is_told_by_name_only(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    message = told(monkeypatch, **{name: value})

    assert name in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "query",
    [
        "host=a:5432&host=b:5433",
        "host=a,b&port=5432,5433",
        "host=a:5432&host=b:5433&target_session_attrs=read-write",
        "host=a:5432&host=b:5433&target_session_attrs=primary&sslmode=verify-full",
    ],
)
def test_the_database_may_have_several_hosts(monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    url = f"postgresql+asyncpg://ann:{SECRET}@/shop?{query}"
    monkeypatch.setenv("WORKER_DATABASE__URL", url)

    assert load_settings().database.url.get_secret_value() == url


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("@/shop", "must look like"),
        ("@a:5432,b:5432/shop", "must look like"),
        ("@a:5432/shop?host=b:5432", "must look like"),
        ("@/shop?host=a:5432&host=b", "host 2 of 2 must look like host:5432"),
        ("@/shop?host=a,b&port=5432", "host 2 of 2 must look like host:5432"),
        ("@/shop?host=a:5432&host=", "host 2 of 2 must look like host:5432"),
        ("@/shop?host=a:5432&host=[::1]:5432", "host 2 of 2 must look like host:5432"),
        ("@/shop?host=a:1&host=b:1&target_session_attrs=any", "must be read-write or primary"),
        ("@a/shop?target_session_attrs=standby", "must be read-write or primary"),
    ],
)
def test_wrong_hosts_of_the_database_are_told_without_the_password(
    monkeypatch: pytest.MonkeyPatch, rest: str, says: str
) -> None:
    message = told(monkeypatch, WORKER_DATABASE__URL=f"postgresql+asyncpg://ann:{SECRET}{rest}")

    assert message.startswith("WORKER_DATABASE__URL: ")
    assert says in message
    assert SECRET not in message


def test_no_form_of_the_settings_shows_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_BROKER__URL", f"amqp://ann:{SECRET}@rabbit/")
    monkeypatch.setenv("WORKER_DATABASE__URL", f"postgresql+asyncpg://ann:{SECRET}@db/shop")
    settings = load_settings()

    for form in (repr(settings), str(settings), settings.model_dump_json(), str(settings.broker)):
        assert SECRET not in form
    assert SECRET in settings.broker.url.get_secret_value()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().lanes = 3  # type: ignore[misc]


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}__")
        else:
            yield prefix + name, field


FIELDS = dict(fields_of(Settings))
UNITS = ("_seconds", "_days", "_bytes")
COUNTS = {
    "partitions",
    "lanes",
    "queries",
    "group_size",
    "prefetch",
    "max_attempts",
    "broker__delivery_limit",
    "database__pool_size",
    "database__max_overflow",
    "health__port",
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_default_and_a_sentence(name: str) -> None:
    field: Any = FIELDS[name]

    assert not field.is_required()
    assert field.description
    assert field.description.rstrip().endswith((".", "."))
    assert field.description[0].isupper() or field.description.startswith("`")


@pytest.mark.parametrize("name", FIELDS)
def test_every_quantity_has_its_unit_in_its_name(name: str) -> None:
    if FIELDS[name].annotation in (int, float) and name not in COUNTS:
        assert name.endswith(UNITS), name


@pytest.mark.parametrize("section", [BrokerSettings, DatabaseSettings, HealthSettings])
def test_every_section_says_what_it_is_for(section: type[BaseModel]) -> None:
    assert section.__doc__
