"""What the Dockerfile and the compose file promise; `make image-test` tries the image itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file; `make check` compares it with the schema of such files."""
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return loaded


def test_ports_are_published_on_the_loopback_address_alone(compose: dict[str, Any]) -> None:
    published = [port for each in compose["services"].values() for port in each.get("ports", ())]

    assert any(port.endswith(":8765") for port in published)
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_the_health_of_the_worker_is_asked_by_its_own_command(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]

    assert worker["healthcheck"]["test"] == ["CMD", "worker", "health"]
    assert worker["environment"]["WORKER_HEALTH__HOST"] == "0.0.0.0"
    assert re.search(r'^HEALTHCHECK .*CMD \["worker", "health"', DOCKERFILE, re.MULTILINE)
    assert "8765" not in DOCKERFILE  # that is the setting's to say


def test_the_compose_file_says_which_compose_it_needs(compose: dict[str, Any]) -> None:
    assert any("content" in each for each in compose["configs"].values())
    assert "Docker Compose 2.23.1" in (ROOT / "docker-compose.yml").read_text()


def test_the_image_takes_no_package_that_is_not_locked() -> None:
    lines = re.sub(r"\\\n", "", DOCKERFILE).splitlines()
    calls = [call for line in lines for call in line.split("&&") if re.search(r"\bpip\b \w", call)]

    assert len(calls) == 4
    assert [it for it in calls if "--require-hashes" not in it and "--no-index" not in it] == []
    assert all("--no-build-isolation" in it for it in calls if "pip wheel" in it)
