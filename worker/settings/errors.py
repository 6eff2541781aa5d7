"""What is said of settings that cannot be used: the variable, its value, and what it must be.

What may be an address or a password is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_settings import BaseSettings, SettingsError

from worker.settings.types import RULES_EXAMPLE
from worker.settings.typos import PREFIX, no_such, sections


def explain_value(fault: Mapping[str, object], settings: type[BaseSettings]) -> str:
    """One fault of a `ValidationError`: a value that its setting does not take."""
    loc = fault["loc"]
    assert isinstance(loc, tuple)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not loc:
        return message
    name = PREFIX + "__".join(str(part).upper() for part in loc)
    unknown = fault["type"] == "extra_forbidden"
    secret = loc[-1] == "url" or unknown or loc[-1] in sections(settings)
    hidden = secret or fault["input"] is None or "://" in str(fault["input"])
    value = "" if hidden else f"={fault['input']!r}"
    return f"{name}{value}: {no_such(name, settings) if unknown else message}"


def explain_text(error: SettingsError, settings: type[BaseSettings]) -> str:
    """A variable whose text is no JSON, where pydantic-settings reads some."""
    if '"authorization"' in str(error):
        return f"{PREFIX}AUTHORIZATION: is not JSON; it must look like {RULES_EXAMPLE}"
    # A section that is given whole.
    found = (name for name in sections(settings) if f'"{name}"' in str(error))
    section = next(found, "…").upper()
    return (
        f"{PREFIX}{section}: must not be set as a whole; set its parts, such as "
        f"{PREFIX}{section}__URL"
    )
