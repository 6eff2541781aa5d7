"""Names of variables that are no setting's, and what was meant; that would stay at its default."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from pydantic import BaseModel
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource

PREFIX = "WORKER_"
_CLOSE = 0.85
"""`DATABASE_URL` is as close as that to `DATABASE__URL`, and `DATABASE_PORT` to nothing."""


def misspelt(settings: type[BaseSettings]) -> Iterator[str]:
    """A line for each variable, of the environment or `.env`, that must have been meant as another.

    So is whatever has two underscores: nobody else has these behind our prefix.
    """
    sources = (DotEnvSettingsSource(settings), EnvSettingsSource(settings))
    given = {name.upper(): value or "" for it in sources for name, value in it.env_vars.items()}
    for name in sorted(given.keys() - set(_names(settings))):
        # Kubernetes tells each container of a service `worker-health` by WORKER_HEALTH_PORT.
        if not name.startswith(PREFIX) or given[name].startswith("tcp://"):
            continue
        meant = closest(name, settings)
        if meant or "__" in name:
            both = f" {meant} is set, too: remove this one" if meant in given else ""
            yield f"{name}: {no_such(name, settings)}{both}"


def no_such(name: str, settings: type[BaseSettings]) -> str:
    """What to say of a name that is no setting's."""
    meant = closest(name, settings)
    return "there is no such setting" + (f". Did you mean {meant}?" if meant else "")


def closest(name: str, settings: type[BaseSettings]) -> str | None:
    """The setting whose name this nearly is, if there is one."""
    ends = [each.removeprefix(PREFIX) for each in _names(settings)]
    close = get_close_matches(name.removeprefix(PREFIX), ends, n=1, cutoff=_CLOSE)
    return PREFIX + close[0] if close else None


def sections(settings: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields that hold settings of their own, such as `broker`."""
    found = {name: field.annotation for name, field in settings.model_fields.items()}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }


def _names(settings: type[BaseModel], prefix: str = PREFIX) -> Iterator[str]:
    inner = sections(settings)
    for name in settings.model_fields:
        if name in inner:
            yield from _names(inner[name], f"{prefix}{name.upper()}__")
        else:
            yield prefix + name.upper()
