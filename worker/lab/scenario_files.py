"""Scenarios that come with the worker or lie in files of one's own, with changes applied."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from worker.lab.scenario import BadScenario, Scenario, checked


def shipped() -> dict[str, Traversable]:
    """The scenarios that come with the worker, by name."""
    folder = resources.files("worker.lab") / "scenarios"
    files = (file for file in folder.iterdir() if file.name.endswith(".toml"))
    return {file.name.removesuffix(".toml"): file for file in sorted(files, key=lambda f: f.name)}


def load_scenario(name: str, changes: Iterable[str] = ()) -> Scenario:
    """A shipped scenario, or a file that ends in `.toml`, with `--set key=value` applied.

    Raises `BadScenario` that names what is wrong.
    """
    members = _read(name)
    for change in changes:
        _set(members, change)
    return checked(members, name)


def _read(name: str) -> dict[str, Any]:
    if name in (known := shipped()):
        return tomllib.loads(known[name].read_text(encoding="utf-8"))
    if not name.endswith(".toml"):
        raise BadScenario(
            f"there is no scenario {name!r}. Known: {', '.join(known)}; or name a file of your own "
            "that ends in .toml"
        )
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadScenario(f"{name} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadScenario(f"{name} is no TOML: {error}") from error


def _set(members: dict[str, Any], change: str) -> None:
    """Apply `load.rate_per_second=300` or `step.0.seconds=0.01`."""
    path, equals, text = change.partition("=")
    *outer, last = path.split(".")
    if not equals or not last or not all(outer):
        raise BadScenario(f"--set {change}: not of the form key=value, as in pool.pool_size=5")
    here: Any = members
    for key in outer:
        here = (
            here[_place(here, key, change)] if isinstance(here, list) else here.setdefault(key, {})
        )
        if not isinstance(here, dict | list):
            raise BadScenario(f"--set {change}: {key} holds no further keys")
    here[_place(here, last, change) if isinstance(here, list) else last] = _value(text)


def _place(steps: list[Any], key: str, change: str) -> int:
    if not key.isdecimal() or int(key) >= len(steps):
        raise BadScenario(f"--set {change}: {key} is none of the places 0 to {len(steps) - 1}")
    return int(key)


def _value(text: str) -> Any:
    """As TOML has it; what is no TOML is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
