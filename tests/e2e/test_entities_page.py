"""docs/entities.md, walked word for word: from a wheel, with no checkout, to the first event."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.commandline import SECONDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "entities.md").read_text()


async def run(*command: str, cwd: Path, environment: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 2 * SECONDS)
    assert process.returncode == 0, output.decode() + errors.decode()
    return output.decode()


@pytest.fixture(scope="module")
async def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel, and what it depends on."""
    folder = tmp_path_factory.mktemp("installed")
    await run(
        *(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)), cwd=ROOT
    )
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    zipfile.ZipFile(wheel).extractall(site)
    # A path in a .pth file is searched, but has no .pth files read: that of the checkout is not.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    programs = folder / "venv" / "bin"
    script = programs / "worker"
    script.write_text(f"#!{programs}/python\nfrom worker.__main__ import main\nmain()\n")
    script.chmod(0o755)
    return programs


def steps() -> str:
    """The page's commands, and its file made where it stands among them."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
    return "".join(
        block if language == "sh" else f"cat > shop/entities.py <<'END'\n{block}END\n"
        for language, block in blocks
    )


async def test_the_page_leads_to_the_first_event_of_an_entity_of_ones_own(
    installed: Path, environment: dict[str, str], empty_database: str, tmp_path: Path
) -> None:
    where = {"PATH": f"{installed}:{os.environ['PATH']}", "WORKER_DATABASE__URL": empty_database}
    script = "set -E\ntrap 'echo failed: $BASH_COMMAND >&2' ERR\n" + steps() + "wait\n"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script),
        cwd=tmp_path,
        env=environment | where,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 2 * SECONDS)
    said = errors.decode()

    assert [line for line in said.splitlines() if line.startswith("failed: ")] == [
        "failed: worker publish product.sell quantity=11 --target sku=tea --wait"
    ], said
    assert "error: conflict: only 10 left" in said
    written, created, restocked, refused, *schema = output.decode().splitlines()
    assert Path(written).parent == tmp_path / "shop" / "migrations"
    events = [json.loads(line) for line in (created, restocked, refused)]
    assert [event["type"] for event in events] == [
        *("product.created", "product.restocked", "product.sell.rejected")
    ]
    assert events[1]["data"]["stock"] == 10
    assert json.loads("".join(schema))["properties"]["type"] == {"const": "product.sell"}
    assert str(ROOT) not in said


HARD_TO_FORMAT = """
from sqlalchemy import ARRAY, CheckConstraint, Index, String, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from worker.processing.crud import crud_entity
from worker.core.models import Row
from worker.core.payloads import Key, Payload


class Product(Row):
    __tablename__ = "products"

    details: Mapped[dict] = mapped_column(JSONB)
    tags: Mapped[list[str]] = mapped_column(ARRAY(String(20)))

    __table_args__ = (
        *Row.rules(),
        CheckConstraint("details->>'kind' IN ('tea', 'coffee', 'cocoa', 'water', 'juice', 'beer', "
                        "'wine', 'milk', 'something else that is drunk')", name="kind_known"),
        Index("ix_products_tags", "tags", postgresql_where=text("details->>'kind' <> 'tea'")),
    )


ENTITIES = (
    crud_entity(name="product", model=Product, create=Payload, update=Payload, target=Key),
)
"""


@pytest.mark.long
async def test_what_make_migration_writes_passes_make_check(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    (tmp_path / "shop.py").write_text(HARD_TO_FORMAT)
    # The servers of this test are there already; what runs with them is the command after `--`.
    (tmp_path / "servers").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    (tmp_path / "servers").chmod(0o755)
    programs = Path(sys.executable).parent
    variables = {
        "WORKER_ENTITIES": "worker.entities,shop",
        "WORKER_MIGRATIONS": str(tmp_path / "alembic"),
        "PYTHONPATH": str(tmp_path),
    }
    made = await run(
        *(
            "make",
            "--no-print-directory",
            "--old-file",
            ".venv/.ready",
            "migration",
            'm=add "products"',
        ),
        *(f"BIN={programs}", "SERVERS=./servers"),
        cwd=tmp_path,
        environment=environment | variables,
    )

    written = tmp_path / "alembic" / "versions" / made.strip().rpartition("/")[2]
    assert "postgresql.JSONB" in written.read_text()
    for check in (("check",), ("format", "--check")):
        await run(str(programs / "ruff"), *check, "alembic/versions", cwd=tmp_path)
