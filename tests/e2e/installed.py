"""The worker as users install it: from a wheel or an sdist, with only what it asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from importlib.metadata import Distribution
from importlib.util import cache_from_source
from pathlib import Path
from typing import Literal

from dev.supply.lock import locked

ROOT = Path(__file__).parents[2]
Artefact = Literal["wheel", "sdist"]


@dataclass(frozen=True)
class Installed:
    """A virtual environment, outside of any checkout."""

    directory: Path

    @property
    def worker(self) -> str:
        """The command."""
        return str(self.directory / "bin" / "worker")

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.directory / "bin" / "python")

    @property
    def packages(self) -> Path:
        """Where its packages lie."""
        scheme = sysconfig.get_preferred_scheme("prefix")
        return Path(sysconfig.get_path("purelib", scheme, {"base": str(self.directory)}))


def build(artefact: Artefact, into: Path) -> Path:
    """The wheel of this checkout, built from it or from its sdist, with nothing fetched."""
    _run("-m", "hatchling", "build", "--target", artefact, "--directory", str(into))
    if artefact == "sdist":
        (archive,) = into.glob("*.tar.gz")
        options = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet")
        _run("-m", "pip", "wheel", *options, "--wheel-dir", str(into), str(archive))
    (wheel,) = into.glob("*.whl")
    return wheel


def install(wheel: Path, directory: Path) -> Installed:
    """An environment with the wheel and the packages of `requirements.lock`, and no others.

    These are linked from where the tests run, so that nothing is downloaded. Raises
    `CalledProcessError` where they are not all that the wheel asks for.
    """
    venv.EnvBuilder(symlinks=True).create(directory)
    installed = Installed(directory)
    for package in locked():
        if package.installed is not None:
            _link(package.installed, installed.packages)
    uv = Path(sys.executable).with_name("uv")
    options = ("--offline", "--no-cache", "--quiet", "--python", installed.python)
    for command in (("install", "--no-deps", str(wheel)), ("check",)):
        subprocess.run([uv, "pip", *command, *options], cwd=directory, check=True)
    return installed


def _link(package: Distribution, into: Path) -> None:
    top = Path(str(package.locate_file("")))
    for file in package.files or []:
        if file.parts[0] == "..":
            continue  # a command, whose first line names the other environment
        for source in (top / file, Path(cache_from_source(top / file))):
            # What is compiled already need not be compiled again; not every installer does.
            if source.exists():
                _link_file(source, into / source.relative_to(top))


def _link_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
