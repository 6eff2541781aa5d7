"""`import worker` offers what an entity's file needs, and imports none of it before it is asked."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import worker


@pytest.mark.parametrize("name", worker.__all__)
def test_each_public_name_can_be_imported(name: str) -> None:
    found = getattr(worker, name)
    assert any(vars(import_module(home)).get(name) is found for home in worker._HOMES)


def test_types_and_names_are_the_same_list() -> None:
    tree = ast.parse(Path(worker.__file__).read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = [
        name.name for line in typed.body if isinstance(line, ast.ImportFrom) for name in line.names
    ]
    assert sorted(imported) == worker.__all__


def test_nothing_else_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = worker.Nonsense


def test_importing_it_imports_no_library() -> None:
    look = "import sys, worker; print({'sqlalchemy', 'pydantic', 'aio_pika'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
