"""The bill of materials, in CycloneDX 1.5: the same lock file, the same bytes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from dev.supply.lock import Package

OURS = "command-worker"
NAMESPACE = uuid.UUID("7d1a3f52-54c7-4b0e-9b52-3c1d9a4be5a1")


def bill_of(packages: Sequence[Package]) -> dict[str, Any]:
    """The document: each package with version, hashes and, where it is known, its licence."""
    version = metadata.version(OURS)
    worker = f"pkg:pypi/{OURS}@{version}"
    known = {package.name: _purl(package) for package in packages}
    direct = {name for name in _direct() if name in known}
    hashes = "".join(hash_ for package in packages for hash_ in package.hashes)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, worker + hashes)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": worker,
                "name": OURS,
                "version": version,
                "purl": worker,
                "licenses": [{"expression": "MIT"}],
            }
        },
        "components": [_component(package) for package in packages],
        "dependencies": [
            {"ref": worker, "dependsOn": sorted(known[name] for name in direct)},
            *(
                {
                    "ref": known[package.name],
                    "dependsOn": sorted(known[name] for name in package.needs if name in known),
                }
                for package in packages
            ),
        ],
    }


def _direct() -> set[str]:
    return Package(OURS, metadata.version(OURS), None, ()).needs


def _purl(package: Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version}"


def _component(package: Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(package),
        "name": package.name,
        "version": package.version,
        "purl": _purl(package),
        # Of each file that may be installed: the platform chooses one of them.
        "hashes": [{"alg": "SHA-256", "content": hash_} for hash_ in package.hashes],
    }
    if package.licence is not None:
        component["licenses"] = [{"expression": package.licence}]
    if package.marker is not None:
        component["scope"] = "optional"
        component["properties"] = [{"name": "python:marker", "value": package.marker}]
    return component
