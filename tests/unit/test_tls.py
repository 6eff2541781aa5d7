"""The settings of TLS: what is wrong with them is told at the start, by name."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.certificates import Authority
from worker.core.errors import Misconfigured
from worker.database.engine import make_engine
from worker.settings.settings import DatabaseSettings, load_settings
from worker.settings.tls import TlsFiles, mismatch, was_dropped

DATABASE = "postgresql+asyncpg://ann:secret@db/shop"
SERVERS = {"BROKER": "amqps://ann:secret@mq/", "DATABASE": DATABASE}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    authority = Authority(tmp_path)
    pair, other = authority.pair("ours"), authority.pair("other")
    key = load_pem_private_key(pair.key.read_bytes(), None)
    (tmp_path / "locked.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    (tmp_path / "junk.pem").write_text("no PEM at all")
    (tmp_path / "both.pem").write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    return {
        "ca": authority.file,
        "certificate": pair.certificate,
        "key": pair.key,
        "foreign": other.key,
        "locked": tmp_path / "locked.key",
        "junk": tmp_path / "junk.pem",
        "both": tmp_path / "both.pem",
        "missing": tmp_path / "missing.pem",
        "folder": tmp_path,
    }


def told(monkeypatch: pytest.MonkeyPatch, **variables: str | Path) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(f"WORKER_{name}", str(value))
    with pytest.raises(Misconfigured) as caught:
        load_settings()
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("given", "told_at"),
    [
        ({"CA": "missing"}, "CA: No such file"),
        ({"CA": "folder"}, "CA: Is a directory"),
        ({"CA": "junk"}, "CA: holds no certificates"),
        ({"CERTIFICATE": "missing", "KEY": "key"}, "KEY: missing.pem cannot be read"),
        ({"CERTIFICATE": "certificate", "KEY": "missing"}, "KEY: missing.pem cannot be read"),
        ({"CERTIFICATE": "certificate", "KEY": "foreign"}, "KEY: not that of the certificate"),
        ({"CERTIFICATE": "certificate", "KEY": "locked"}, "KEY: is encrypted"),
        ({"CERTIFICATE": "certificate"}, "KEY: private key"),
        ({"CERTIFICATE": "junk", "KEY": "key"}, "KEY: in PEM form"),
        ({"KEY": "key"}, "KEY: needs the certificate"),
    ],
)
def test_a_file_that_is_of_no_use_is_told_by_name(
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, Path],
    server: str,
    given: dict[str, str],
    told_at: str,
) -> None:
    variables: dict[str, str | Path] = {f"{server}__URL": SERVERS[server]}
    variables |= {f"{server}__TLS_{name}_FILE": files[file] for name, file in given.items()}
    at, words = told_at.split(": ")

    message = told(monkeypatch, **variables)

    assert message.startswith(f"WORKER_{server}__TLS_{at}_FILE")
    assert words in message


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("BROKER", "amqp://ann:secret@mq/"),
        ("DATABASE", f"{DATABASE}?sslmode=prefer"),
        ("DATABASE", f"{DATABASE}?ssl=disable"),
    ],
)
def test_files_without_encryption_are_told(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], server: str, url: str
) -> None:
    variables: dict[str, str | Path] = {f"{server}__URL": url}
    variables[f"{server}__TLS_CA_FILE"] = files["ca"]

    assert "encrypt" in told(monkeypatch, **variables)


@pytest.mark.parametrize(
    ("server", "query"),
    [
        ("BROKER", "no_verify_ssl=1"),
        ("BROKER", "cafile=/ca.pem"),
        ("DATABASE", "sslrootcert=/ca.pem"),
        ("DATABASE", "sslmode=verify_full"),
        ("DATABASE", "ssl=true"),
    ],
)
def test_what_the_url_cannot_say_is_told(
    monkeypatch: pytest.MonkeyPatch, server: str, query: str
) -> None:
    message = told(monkeypatch, **{f"{server}__URL": f"{SERVERS[server]}?{query}"})

    assert message.startswith(f"WORKER_{server}__URL: ")


@pytest.mark.parametrize(
    ("query", "with_file", "mode"),
    [
        ("", False, None),
        ("", True, "verify-full"),
        ("?sslmode=verify-full", False, "verify-full"),
        ("?ssl=verify-ca", True, "verify-ca"),
        ("?sslmode=disable", False, "disable"),
    ],
)
def test_an_authority_makes_verification_the_default(
    files: dict[str, Path], query: str, with_file: bool, mode: str | None
) -> None:
    settings = DatabaseSettings.model_validate(
        {"url": DATABASE + query, "tls_ca_file": files["ca"] if with_file else None}
    )

    assert settings.tls_mode == mode
    assert not {"ssl", "sslmode"} & make_engine(settings).url.query.keys()


def test_a_key_may_stand_beside_its_certificate(files: dict[str, Path]) -> None:
    given = {"url": DATABASE, "tls_certificate_file": files["both"]}

    assert DatabaseSettings.model_validate(given).tls_files.context().get_ca_certs() is not None


def test_what_is_made_verifies(files: dict[str, Path]) -> None:
    context = TlsFiles(ca=files["ca"]).context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context is TlsFiles(ca=files["ca"]).context()


def test_an_error_in_its_own_chain_is_no_endless_one() -> None:
    error, other = ConnectionResetError("reset"), OSError("lost")
    error.__cause__, other.__cause__ = other, error

    assert mismatch(error) is None
    assert was_dropped(other)
