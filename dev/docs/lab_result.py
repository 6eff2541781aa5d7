"""The page `docs/lab-result.md`: every field of `result.json`, out of its models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from worker.lab.results import Result

INTRODUCTION = """\
Durations are in seconds, sizes in bytes, CPU in cores; a field of another unit says so in its
name. A field that is missing was not measured. `schema_version` changes when a field changes its
meaning or goes away; new fields may come without that.
"""

WORDS = {"str": "text", "float": "number", "int": "whole number", "bool": "yes or no"}


def result_page(notice: str) -> str:
    """Every part of a result, from the outside in, each with a table of its fields."""
    parts: dict[type[BaseModel], None] = {}
    _collect(Result, parts)
    lines = ["# `result.json` of the pool lab", "", notice, INTRODUCTION]
    for part in parts:
        lines += [f"## {part.__name__}", "", _one_line(part.__doc__), ""]
        lines += ["| field | type | meaning |", "|---|---|---|"]
        for name, field in part.model_fields.items():
            kind, meaning = _kind(field.annotation), _one_line(field.description)
            lines.append(f"| `{name}` | {kind} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _collect(part: type[BaseModel], parts: dict[type[BaseModel], None]) -> None:
    parts.setdefault(part)
    for field in part.model_fields.values():
        for model in _models_in(field.annotation):
            if model not in parts:
                _collect(model, parts)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _kind(annotation: Any) -> str:
    """The type in words; of an optional one, what it is when it is there."""
    arguments = [each for each in get_args(annotation) if each is not type(None)]
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return "object"
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is Annotated or arguments:
        return _kind(arguments[0])
    name = str(annotation.__name__)
    is_part = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return f"[{name}](#{name.lower()})" if is_part else WORDS.get(name, name)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
