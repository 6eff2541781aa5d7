"""The mutations themselves: each applies, and each names tests that there are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dev.mutations.catalogue import MUTATIONS
from dev.mutations.copies import REPOSITORY, copied
from dev.mutations.mutation import Change, Mutation, NoLongerApplies

each_mutation = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)


@each_mutation
def test_it_applies_and_leaves_python(mutation: Mutation, tmp_path: Path) -> None:
    for change in mutation.changes:
        copy = tmp_path / change.file
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text((REPOSITORY / change.file).read_text())
        change.apply(tmp_path)
        ast.parse(copy.read_text())


@each_mutation
def test_its_witnesses_exist(mutation: Mutation) -> None:
    assert mutation.witnesses
    for witness in mutation.witnesses:
        file, _, name = witness.partition("::")
        tree = ast.parse((REPOSITORY / "tests" / file).read_text())
        assert name.partition("[")[0] in {getattr(node, "name", "") for node in ast.walk(tree)}


def test_names_differ() -> None:
    assert len({each.name for each in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("old", ["not to be found anywhere", "from __future__", "import "])
def test_a_change_that_does_not_apply_once_is_an_error(old: str) -> None:
    change = Change("worker/processing/lanes.py", old, "")
    mutation = Mutation("x", "", "G1", (change,), ("x",))
    if old == "from __future__":
        with copied(mutation) as root:
            assert old not in (root / change.file).read_text()
    else:
        with pytest.raises(NoLongerApplies), copied(mutation):
            pass
