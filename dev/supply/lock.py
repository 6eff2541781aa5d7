"""The locked packages, and what their metadata say of them where they are installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

LOCK = Path(__file__).parents[2] / "requirements.lock"

# What packages without a License-Expression (PEP 639) say in its place.
_SPDX_OF = {
    "apache software license": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit": "MIT",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
PERMISSIVE = frozenset(
    {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0"}
    | {"MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib"}
)
"""Of these anything may be made; changes to files under MPL have to be published."""


@dataclass(frozen=True)
class Package:
    """One line of the lock file, with what follows it."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]
    """SHA-256 of each file that may be installed."""

    @property
    def installed(self) -> metadata.Distribution | None:
        """Its metadata; `None` where this platform does without it."""
        try:
            found = metadata.distribution(self.name)
        except metadata.PackageNotFoundError:
            return None
        return found if found.version == self.version else None

    @property
    def licence(self) -> str | None:
        """An SPDX expression; `None` where it is not known here."""
        return licence_of(self.installed) if self.installed is not None else None

    @property
    def needs(self) -> set[str]:
        """Names of the packages that it asks for, whether they are locked or not."""
        wanted = self.installed.requires or [] if self.installed is not None else []
        needed = (Requirement(line) for line in wanted)
        return {
            canonical(it.name)
            for it in needed
            if it.marker is None or it.marker.evaluate({"extra": ""})
        }


def licence_of(distribution: metadata.Distribution) -> str | None:
    """Its licence as an SPDX expression; `None` where it says none that is known."""
    said = distribution.metadata
    if "License-Expression" in said:
        return said["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    candidates = (*classifiers, said["License"].strip() if "License" in said else "")
    return next((_SPDX_OF[it.lower()] for it in candidates if it.lower() in _SPDX_OF), None)


def is_permissive(expression: str) -> bool:
    """Whether one may choose a way through the expression that holds permissive licences only."""
    return any(
        all(it.strip("() ") in PERMISSIVE for it in re.split(r"\s+AND\s+", way))
        for way in re.split(r"\s+OR\s+", expression)
    )


def canonical(name: str) -> str:
    """The one way of writing a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(path: Path = LOCK) -> list[Package]:
    """The packages of a lock file, in its order."""
    return list(_packages(path.read_text()))


def _packages(text: str) -> Iterator[Package]:
    for block in re.split(r"\n(?=\S)", text.replace("\\\n", "").strip()):
        line, *hashes = block.split("--hash=sha256:")
        requirement = Requirement(line.strip())
        (pin,) = requirement.specifier
        yield Package(
            canonical(requirement.name),
            pin.version,
            str(requirement.marker) if requirement.marker else None,
            tuple(it.strip() for it in hashes),
        )
