"""The bill of materials names every locked package, and the audit says what it could not do."""

from __future__ import annotations

import json
import re
from email.message import Message
from pathlib import Path
from typing import cast

import pytest

from dev.supply.audit import audit
from dev.supply.lock import LOCK, is_permissive, licence_of, locked
from dev.supply.sbom import bill_of

PACKAGES = locked()


def test_the_bill_names_every_locked_package_with_its_hashes() -> None:
    bill = bill_of(PACKAGES)
    pins = re.findall(r"^(\S+)==(\S+)", LOCK.read_text(), re.MULTILINE)
    hashes = re.findall(r"sha256:([0-9a-f]{64})", LOCK.read_text())

    assert [(it["name"], it["version"]) for it in bill["components"]] == pins
    assert [it["content"] for part in bill["components"] for it in part["hashes"]] == hashes
    assert len(hashes) > len(pins) > 20


def test_every_package_that_is_installed_here_has_a_permissive_licence() -> None:
    here = [it for it in PACKAGES if it.installed is not None]

    assert {it.name for it in here} > {"aio-pika", "asyncpg", "sqlalchemy", "pydantic"}
    assert [(it.name, it.licence) for it in here if not is_permissive(it.licence or "?")] == []


def test_what_depends_on_what_is_part_of_the_bill() -> None:
    needs = {it["ref"]: it["dependsOn"] for it in bill_of(PACKAGES)["dependencies"]}
    names = {ref: {it.partition("@")[0] for it in refs} for ref, refs in needs.items()}
    (aio_pika,) = (ref for ref in needs if ref.startswith("pkg:pypi/aio-pika@"))
    (worker,) = (ref for ref in needs if ref.startswith("pkg:pypi/command-worker@"))

    assert "pkg:pypi/aiormq" in names[aio_pika]
    assert {"pkg:pypi/asyncpg", "pkg:pypi/aio-pika"} <= names[worker]
    assert len(needs) == len(PACKAGES) + 1


def test_the_same_lock_file_makes_the_same_bill() -> None:
    assert json.dumps(bill_of(PACKAGES)) == json.dumps(bill_of(locked()))


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("MIT OR Apache-2.0", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("AGPL-3.0-or-later", False),
        ("MIT AND PSF-2.0", True),
        ("", False),
    ],
)
def test_licences_are_read_as_expressions(expression: str, good: bool) -> None:
    assert is_permissive(expression) is good


def test_a_licence_that_is_not_known_is_not_guessed() -> None:
    said = Message()
    said["License"] = "Mine; ask me"

    assert licence_of(cast("object", type("It", (), {"metadata": said})())) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("says", "code", "words"),
    [
        ("echo 'Found no known vulnerabilities'; exit 0", 0, "packages audited"),
        ("echo 'evil 1.0 has 1 known vulnerability'; exit 1", 1, "evil 1.0"),
        ("echo 'error: Request failed after 3 retries' >&2; exit 2", 0, "NOT AUDITED"),
        ("echo 'error: what is this' >&2; exit 2", 1, "what is this"),
    ],
)
def test_an_audit_says_what_it_found_or_that_it_could_not_ask(
    tmp_path: Path, says: str, code: int, words: str
) -> None:
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!/bin/sh\nfor last; do :; done\ngrep -q 'aio-pika==' \"$last\" || exit 9\n{says}\n"
    )
    uv.chmod(0o755)

    finding = audit(PACKAGES, uv=str(uv))

    assert finding.code == code
    assert words in finding.words
