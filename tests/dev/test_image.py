"""What `make image-test` reads and passes on; the image itself it tries for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.image.base import RELEASES, base_of
from dev.image.build import pip_settings
from dev.servers.errors import ServerError

ROOT = Path(__file__).parents[2]


def test_the_base_of_the_dockerfile_can_be_made() -> None:
    name, python = base_of((ROOT / "Dockerfile").read_text())

    assert name == f"python:{python}-slim"
    assert python in RELEASES


@pytest.mark.parametrize(
    "dockerfile", ["FROM python:3.13-slim AS a\nFROM debian:13\n", "FROM alpine\n", ""]
)
def test_another_base_is_refused(dockerfile: str) -> None:
    with pytest.raises(ServerError, match="The Dockerfile begins with"):
        base_of(dockerfile)


def test_the_build_gets_what_says_where_packages_are_and_nothing_of_this_disk() -> None:
    lines = [
        ":env:.cert='/etc/ssl/own.crt'",
        ":env:.find-links='/opt/wheels'",
        "global.cert='/etc/ssl/other.crt'",
        "global.constraint='/etc/constraints.txt'",
        "global.extra-index-url='file:///opt/simple https://second.example/simple'",
        "install.index-url='https://ann:secret@first.example/simple'",
        "list.format='columns'",
    ]

    assert pip_settings(lines) == {
        "cert": "/etc/ssl/own.crt",
        "extra-index-url": "https://second.example/simple",
        "index-url": "https://ann:secret@first.example/simple",
    }


def test_a_machine_without_such_settings_passes_none_on() -> None:
    assert pip_settings(["global.extra-index-url='file:///opt/simple'", ""]) == {}
