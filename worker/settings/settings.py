"""All settings: environment variables or `.env`, prefix `WORKER_`, nested with `__`.

Every one has its unit in its name, a default and a sentence; the table in `docs/settings.md` is
generated from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from worker.core.errors import Misconfigured
from worker.settings.env_files import broken_lines
from worker.settings.errors import explain_text, explain_value
from worker.settings.tls import TlsFiles
from worker.settings.types import (
    AuthoritiesFile,
    CertificateFile,
    KeyFile,
    MigrationFolders,
    Rules,
)
from worker.settings.typos import misspelt
from worker.settings.urls import check_broker, check_database, split, tls_mode

ENV_FILE = Path(".env")

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Days = Annotated[float, Field(gt=0, le=3_650)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class _TlsSection(_Section):
    """What both servers' sections have; the fields stand there, in the order of the docs."""

    @property
    def tls_files(self) -> TlsFiles:
        """The files that TLS needs."""
        names = ("tls_ca_file", "tls_certificate_file", "tls_key_file")
        return TlsFiles(*(getattr(self, name) for name in names))


class BrokerSettings(_TlsSection):
    """Where RabbitMQ is, and what the worker's queues may hold."""

    url: SecretStr = Field(
        SecretStr("amqp://guest:guest@127.0.0.1:5672/"),
        description="Address of RabbitMQ, `amqp://` or `amqps://` (TLS, certificate verified); "
        "of a cluster the addresses of its nodes, separated by commas.",
    )
    tls_ca_file: AuthoritiesFile = Field(
        None,
        description="PEM file of the authorities that the broker's certificate may come from; "
        "unset, those of the system.",
    )
    tls_certificate_file: CertificateFile = Field(
        None, description="PEM file of the worker's own certificate, for a broker that wants one."
    )
    tls_key_file: KeyFile = Field(
        None,
        description="PEM file of that certificate's private key, not encrypted; unset, it is in "
        "the certificate's file.",
    )
    tell_user_id: bool = Field(
        True,
        description="Set the AMQP property `user_id` to the URL's account on what the command line "
        "publishes; the broker checks it. `false` where its accounts have other names (OAuth 2).",
    )
    declare: bool = Field(
        True,
        description="Declare exchanges and queues at start; `false` only checks that they exist, "
        "so that the account needs no configure right.",
    )
    heartbeat_seconds: Annotated[int, Field(ge=2, le=600)] = Field(
        10, description="AMQP heartbeat; a dead link is noticed after about three of them."
    )
    connect_timeout_seconds: Seconds = Field(
        10,
        description="Longest wait for one attempt to connect to a node, and for what it says about "
        "the queues.",
    )
    confirm_timeout_seconds: Seconds = Field(
        30,
        description="Longest wait for the broker's confirm before events are published again. The "
        "first is a tenth of it, or four times what the last confirms took; each further one is "
        "twice as long.",
    )
    delivery_limit: Annotated[int, Field(ge=8, le=1_000)] = Field(
        20,
        description="Redeliveries after which the broker itself dead-letters a command "
        "(`x-delivery-limit` of the commands queue).",
    )
    commands_max_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        8_000_000_000,
        description="Size of the commands queue beyond which the broker refuses new commands; "
        "publishers with confirms are told.",
    )
    partition_exchange: Literal["x-modulus-hash", "x-consistent-hash"] = Field(
        "x-modulus-hash",
        description="Type of the exchange that shares keys out among the partitions; "
        "`x-consistent-hash` may give keys to other partitions when the whole broker restarts, "
        "see docs/scaling.md.",
    )
    events_retention_days: Days = Field(7, description="How long the event stream keeps events.")
    events_max_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        2_000_000_000, description="Size at which the event stream drops its oldest events."
    )
    dead_letters_retention_days: Days = Field(30, description="How long a dead letter is kept.")
    dead_letters_max_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        1_000_000_000,
        description="Size at which the dead-letter queue takes no more; the worker then waits "
        "and says so, nothing is lost.",
    )

    @property
    def urls(self) -> list[str]:
        """The address of each node, password included."""
        return split(self.url.get_secret_value())

    @field_validator("url")
    @classmethod
    def _amqp(cls, value: SecretStr) -> SecretStr:
        check_broker(value.get_secret_value())
        return value


class DatabaseSettings(_TlsSection):
    """Where PostgreSQL is, and the pool of connections to it."""

    url: SecretStr = Field(
        SecretStr("postgresql+asyncpg://postgres@127.0.0.1:5432/postgres"),
        description="Address of PostgreSQL, `postgresql+asyncpg://user:password@host:5432/name`; "
        "with `?sslmode=verify-full` by TLS, certificate verified; of a primary and its standbys "
        "`postgresql+asyncpg://user:password@/name?host=a:5432&host=b:5432`.",
    )
    replica_url: SecretStr | None = Field(
        None,
        description="Address of a standby that queries are answered from, and that may lag behind; "
        "unset, it is the address above.",
    )
    tls_ca_file: AuthoritiesFile = Field(
        None,
        description="PEM file of the authorities that the server's certificate may come from; "
        "makes `verify-full` the default. Unset, those of the system.",
    )
    tls_certificate_file: CertificateFile = Field(
        None,
        description="PEM file of the worker's own certificate, for a server that wants one; makes "
        "`verify-full` the default.",
    )
    tls_key_file: KeyFile = Field(
        None,
        description="PEM file of that certificate's private key, not encrypted; unset, it is in "
        "the certificate's file.",
    )
    transaction_pooler: bool = Field(
        False,
        description="Whether the address is that of PgBouncer, or another pooler, in transaction "
        "mode: then no statement is kept prepared, and the limits below are not sent with each "
        "connection (set them on the account).",
    )
    pool_size: Count = Field(10, description="Connections that the pool keeps open.")
    max_overflow: Annotated[int, Field(ge=0, le=100_000)] = Field(
        20, description="Further connections that the pool may open under load."
    )
    pool_timeout_seconds: Seconds = Field(
        5, description="Longest wait for a connection out of the pool."
    )
    pool_recycle_seconds: Seconds = Field(
        1800, description="Age at which a pooled connection is replaced."
    )
    connect_timeout_seconds: Seconds = Field(5, description="Longest wait for a new connection.")
    statement_timeout_seconds: Seconds = Field(
        30, description="Longest run of one SQL statement, enforced by the server."
    )
    lock_timeout_seconds: Seconds = Field(
        10, description="Longest wait for a row lock, enforced by the server."
    )
    idle_in_transaction_timeout_seconds: Seconds = Field(
        30,
        description="Age of an idle transaction at which the server ends it, or, where its client "
        "froze in the middle of a statement, the worker that waits for its locks. Less than "
        "`WORKER_MAX_ATTEMPTS` lock timeouts, so that the locks of a worker that froze cost others "
        "no command.",
    )

    @field_validator("url", "replica_url")
    @classmethod
    def _asyncpg(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_database(value.get_secret_value())
        return value

    @property
    def room(self) -> int:
        """Connections for commands: one stays free for the health check and for retention."""
        return self.pool_size + self.max_overflow - 1

    @property
    def tls_mode(self) -> str | None:
        """The `sslmode` that holds; `None` leaves it to the driver: TLS if offered, unverified."""
        return tls_mode(self.url.get_secret_value()) or ("verify-full" if self.tls_files else None)


class HealthSettings(_Section):
    """Where `/livez` and `/readyz` are served."""

    host: str = Field("127.0.0.1", description="Address that the health pages listen on.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        8765, description="Port of the health pages; 0 takes any free one and logs it."
    )


class Settings(BaseSettings):
    """The worker's settings; `Settings()` reads the environment and `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="WORKER_",
        env_nested_delimiter="__",
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        validate_default=True,
    )

    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)

    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = Field(
        "worker", description="First part of the name of every exchange and queue."
    )
    entities: str = Field(
        "worker.entities",
        description="Python modules that declare the entities, separated by commas.",
    )
    migrations: MigrationFolders = Field(
        (),
        description="Folders of migrations for entities of your own, separated by commas: paths, "
        "or `package:folder`. They come beside the worker's own migrations; one that holds an "
        "`env.py` is a whole Alembic environment, in place of these.",
    )
    partitions: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="Queues that the commands are shared out among by their key, so that order "
        "holds across workers; 1 is one queue for all. The same for every worker.",
    )
    authorization: Rules = Field(
        None,
        description="Who may send what, as JSON: accounts of the broker, or `*` for everybody, "
        "each with a list of `entity.verb`, `entity.*` or `*`, or `redrive`. Unset, whoever may "
        "publish may send all.",
    )
    lanes: Count = Field(
        4, description="Concurrent transactions; commands with the same key share a lane."
    )
    queries: Annotated[int, Field(ge=0, le=1_000)] = Field(
        2,
        description="Queries that are answered at the same time, each on a connection beside the "
        "pool's; 0 answers none.",
    )
    group_size: Annotated[int, Field(ge=1, le=1_000)] = Field(
        256,
        description="Most commands in one transaction; 1 is strictly one transaction a command.",
    )
    group_budget_seconds: Seconds = Field(
        0.25, description="Age of a transaction after which it takes no further command."
    )
    prefetch: Annotated[int, Field(ge=1, le=65_535)] = Field(
        2048, description="Commands that the broker hands out before the first is acknowledged."
    )
    max_body_bytes: Annotated[int, Field(ge=1_000, le=128_000_000)] = Field(
        1_048_576, description="Largest command body that is read; a larger one is dead-lettered."
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="Attempts at a command whose handler fails, before it is dead-lettered."
    )
    retry_base_seconds: Seconds = Field(
        0.2, description="Upper bound of the first wait before a new attempt; doubles each time."
    )
    retry_max_seconds: Seconds = Field(
        10, description="Upper bound of any wait before a new attempt."
    )
    contention_seconds: Seconds = Field(
        300,
        description="Time for which a command is tried again, uncounted, while others are in its "
        "way: they keep its row locked, or change it first. After that each try is an attempt.",
    )
    handler_timeout_seconds: Seconds = Field(
        10,
        description="Longest run of a handler of your own; then it is cancelled, and its attempt "
        "has failed.",
    )
    shutdown_seconds: Seconds = Field(
        15, description="Time that a stop leaves for what is in hand."
    )
    ledger_retention_days: Days = Field(
        7, description="How long a command's id and answer are remembered."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`json` lines, `console` for people, `auto` by where stderr goes."
    )

    @model_validator(mode="after")
    def _lanes_fit_the_pool(self) -> Settings:
        room = self.database.room
        if self.lanes > room:
            raise ValueError(
                f"WORKER_LANES={self.lanes} needs more connections than the pool has: "
                f"WORKER_DATABASE__POOL_SIZE + WORKER_DATABASE__MAX_OVERFLOW - 1 = {room}. "
                "Lower the lanes or enlarge the pool"
            )
        return self


def load_settings() -> Settings:
    """Read the settings; raise `Misconfigured` naming each wrong variable and its value."""
    if lines := list(broken_lines(ENV_FILE)):
        raise Misconfigured("\n".join(lines))
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [explain_value(dict(fault), Settings) for fault in error.errors()]
        told = dict.fromkeys([*lines, *misspelt(Settings)])  # a name may be wrong to both
        raise Misconfigured("\n".join(told)) from None
    except SettingsError as error:
        raise Misconfigured(explain_text(error, Settings)) from None
    if lines := list(misspelt(Settings)):
        raise Misconfigured("\n".join(lines))
    return settings
