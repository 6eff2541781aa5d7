"""`python -m dev.supply sbom|licences|audit`: see `make sbom` and `make audit`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dev.supply.audit import audit
from dev.supply.lock import Package, is_permissive, locked
from dev.supply.sbom import bill_of


def main() -> int:
    """Run one of them; the exit code is 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m dev.supply", description=__doc__)
    parser.add_argument("what", choices=("sbom", "licences", "audit"))
    parser.add_argument("--out", type=Path, default=Path("sbom.json"))
    options = parser.parse_args()
    packages = locked()
    match options.what:
        case "sbom":
            bill = json.dumps(bill_of(packages), indent=2) + "\n"
            options.out.write_text(bill, encoding="utf-8")
            print(f"{options.out}: {len(packages)} packages")
        case "licences":
            return _licences(packages)
        case "audit":
            finding = audit(packages)
            print(finding.words, file=sys.stderr)
            return finding.code
    return 0


def _licences(packages: list[Package]) -> int:
    here = [package for package in packages if package.installed is not None]
    wrong = [it for it in here if it.licence is None or not is_permissive(it.licence)]
    for package in wrong:
        licence = package.licence or "no licence that is known"
        print(f"{package.name} {package.version}: {licence}", file=sys.stderr)
    print(
        f"{len(here)} of {len(packages)} packages are installed here, "
        f"{len(here) - len(wrong)} under a permissive licence"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
