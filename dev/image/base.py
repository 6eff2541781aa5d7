"""The image that the Dockerfile begins with, made here: registries of images may be out of reach.

Debian 13 has the Python of the official image, but for its place: there `python` is in
/usr/local/bin, here a link to Debian's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from dev.image.buildah import Buildah
from dev.servers.commands import run
from dev.servers.errors import ServerError
from dev.servers.progress import say, step

RELEASES = {"3.11": "bookworm", "3.13": "trixie"}
"""The Debian release that has this Python."""

_SECONDS = 1800.0


def make_base(buildah: Buildah, dockerfile: Path) -> None:
    """Have the base in the storage, under its own name; made once."""
    name, python = base_of(dockerfile.read_text(encoding="utf-8"))
    image = f"docker.io/library/{name}"
    if buildah.has(image):
        return
    if python not in RELEASES:
        raise ServerError(f"No Debian release with Python {python} is known for {name}.")
    with buildah.container("scratch") as container:
        root = Path(buildah("mount", container))
        with step(f"making {name} out of Debian {RELEASES[python]}, once; 1 to 3 minutes"):
            _bootstrap(buildah.place, RELEASES[python], root)
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        told = run(["chroot", str(root), "python", "--version"], 30.0).output
        if not told.startswith(f"Python {python}."):
            raise ServerError(
                f"Debian {RELEASES[python]} has {told.strip()}, not {python}.", code=1
            )
        buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
        buildah("commit", "--quiet", container, image)
    say(f"made {name}")


def base_of(dockerfile: str) -> tuple[str, str]:
    """The name of the one base of all stages, and the version of its Python."""
    bases = set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE))
    if len(bases) != 1:
        raise ServerError(f"The Dockerfile begins with several images: {sorted(bases)}.", code=1)
    (name,) = bases
    found = re.fullmatch(r"python:(\d+\.\d+)-slim", name)
    if found is None:
        raise ServerError(f"The Dockerfile begins with {name}, which is not made here.", code=1)
    return name, found[1]


def _bootstrap(place: Path, release: str, root: Path) -> None:
    packages = "--include=python3,python3-venv"
    made = run(
        ["debootstrap", "--variant=minbase", packages, release, str(root), *_mirror()], _SECONDS
    )
    log = place / "debootstrap.log"
    log.write_text(made.output, encoding="utf-8")
    if not made.ok:
        raise ServerError(f"Debian {release} could not be fetched (exit {made.code}).", log=log)
    for leftover in (*root.glob("var/cache/apt/archives/*.deb"), *root.glob("var/lib/apt/lists/*")):
        if leftover.is_file():
            leftover.unlink()


def _mirror() -> list[str]:
    """Where this machine has its own packages from; nothing where it does not say."""
    asked = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"]
    lines = (line.split() for line in run(asked, 30.0).output.splitlines())
    return [words[1] for words in lines if len(words) == 2 and words[0] == "Debian"][:1]
