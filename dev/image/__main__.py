"""`python -m dev.image`: build the image of the Dockerfile and have a worker in it answer."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from dev.image.base import make_base
from dev.image.build import build
from dev.image.buildah import Buildah
from dev.image.trial import trial
from dev.servers.errors import ServerError
from dev.servers.install import Apt
from dev.servers.progress import say

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = ("buildah", "debootstrap")


def main() -> int:
    """The exit code: 1 where the image is not as it must be, 4 where it cannot be built here."""
    place = REPOSITORY / ".services" / "image"
    place.mkdir(parents=True, exist_ok=True)
    try:
        _have_programs(place)
        buildah = Buildah(place)
        make_base(buildah, REPOSITORY / "Dockerfile")
        build(buildah, REPOSITORY)
        trial(buildah)
    except ServerError as error:
        say(f"error: {error}")
        return error.code
    return 0


def _have_programs(place: Path) -> None:
    if os.geteuid() != 0:
        raise ServerError("Only root can build an image without an engine: `sudo make image-test`.")
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if not missing:
        return
    apt = Apt(place / "apt.log")
    if apt.prefix() is None:
        raise ServerError(
            f"{' and '.join(missing)} cannot be found: use Debian ≥ 12 or Ubuntu ≥ 22.04, where "
            "apt-get installs them, or a Docker engine: `docker build .`"
        )
    apt.install(missing)


if __name__ == "__main__":
    sys.exit(main())
