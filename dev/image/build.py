"""`docker build .` by buildah, with the machine's own index of packages."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dev.image.buildah import Buildah
from dev.servers.progress import step

IMAGE = "localhost/command-worker"
PASSED_ON = {
    *("index-url", "extra-index-url", "trusted-host", "proxy"),
    *("cert", "client-cert", "timeout", "default-timeout", "retries"),
}
"""Settings of pip that say where packages are and how they are reached."""


def build(buildah: Buildah, repository: Path) -> None:
    """Build the image; pip's settings are a secret of the build, so no trace of them stays."""
    with (
        tempfile.TemporaryDirectory(prefix="image-", dir=buildah.place) as folder,
        step("building the image"),
    ):
        settings = pip_settings(_told_by_pip())
        file = Path(folder) / "pip.conf"
        file.touch(mode=0o600)
        file.write_text(
            "\n".join(["[global]", *(f"{key} = {value}" for key, value in settings.items()), ""]),
            encoding="utf-8",
        )
        certificates = (settings[key] for key in ("cert", "client-cert") if key in settings)
        buildah(
            "bud",
            "--pull-never",
            "--format=docker",  # the other format has no health check
            f"--secret=id=pip.conf,src={file}",
            *(f"--volume={path}:{path}:ro" for path in certificates),
            f"--tag={IMAGE}",
            str(repository),
        )


def pip_settings(lines: Iterable[str]) -> dict[str, str]:
    """What of `pip config list` the build needs; what names this machine's disk is left out.

    The environment, which comes first in the list, has the last word.
    """
    settings: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key not in PASSED_ON:
            continue
        words = [word for word in str(ast.literal_eval(value)).split() if "file://" not in word]
        if words:
            settings.setdefault(key, " ".join(words))
    return settings


def _told_by_pip() -> list[str]:
    asked = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
