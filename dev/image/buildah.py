"""buildah with a storage of its own, so that no image of this machine is seen or changed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dev.servers.errors import ServerError

SECONDS = 900.0
# No registry is asked: a name without one is that of an image in the storage, or of none.
_STORAGE = """\
[storage]
driver = "vfs"
graphroot = "{place}/graph"
runroot = "{place}/run"
"""
_REGISTRIES = """\
unqualified-search-registries = ["docker.io"]
short-name-mode = "disabled"
"""


class Buildah:
    """Runs buildah; raises `ServerError` with its last words where it fails.

    With isolation by chroot: no engine, no kernel feature beyond what root has.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "storage.conf").write_text(_STORAGE.format(place=place), encoding="utf-8")
        (place / "registries.conf").write_text(_REGISTRIES, encoding="utf-8")
        self.environment = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(place / "registries.conf"),
            "BUILDAH_ISOLATION": "chroot",
        }

    def __call__(self, *arguments: str) -> str:
        """Run it to its end; what it wrote to stdout, without the line's end."""
        log = self.place / "buildah.log"
        with log.open("w", encoding="utf-8") as errors:
            done = subprocess.run(
                ["buildah", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        if done.returncode:
            with log.open("a", encoding="utf-8") as errors:
                errors.write(done.stdout)
            words = f"`buildah {' '.join(arguments[:2])} …` failed (exit {done.returncode})."
            raise ServerError(words, log=log, code=1)
        return done.stdout.rstrip("\n")

    def has(self, image: str) -> bool:
        """Whether the storage holds it."""
        names = json.loads(self("images", "--json") or "null") or []
        return any(image in (each.get("names") or ()) for each in names)

    def configuration(self, image: str) -> dict[str, Any]:
        """What the image says of itself: user, command, health check …"""
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))
        configuration: dict[str, Any] = found["Docker"]["config"]
        return configuration

    @contextmanager
    def container(self, image: str, options: Sequence[str] = ()) -> Iterator[str]:
        """A container of the image, removed in the end; yields its name."""
        name = self("from", "--pull-never", *options, image)
        try:
            yield name
        finally:
            self("rm", name)
