"""Where this code's migrations are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.core.errors import Misconfigured
from worker.database.migrations import own_migrations


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    """As an installer leaves it: the package, and beside it the library that is named `alembic`."""
    for file in ("worker/__init__.py", "alembic/__init__.py", "alembic/script/__init__.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).touch()
    return tmp_path


def test_the_library_beside_an_installed_package_is_not_taken_for_them(site_packages: Path) -> None:
    (site_packages / "worker" / "_alembic").mkdir()
    (site_packages / "worker" / "_alembic" / "env.py").touch()

    assert own_migrations(site_packages / "worker") == site_packages / "worker" / "_alembic"


def test_a_package_without_them_says_so(site_packages: Path) -> None:
    with pytest.raises(Misconfigured, match="WORKER_MIGRATIONS"):
        own_migrations(site_packages / "worker")


def test_in_a_checkout_they_lie_beside_the_package() -> None:
    root = Path(__file__).parents[2]

    assert own_migrations() == root / "alembic"
    assert not (root / "alembic" / "__init__.py").exists()  # it would shadow the library
