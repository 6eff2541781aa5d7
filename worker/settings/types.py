"""Types of settings that take more than a range: files of TLS, folders, and who may send what.

A value that is wrong raises a `ValueError` that says what is wrong, or how it must look.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo
from pydantic_settings import NoDecode

from worker.settings.tls import check_authorities, check_identity
from worker.settings.urls import split, tls_mode


def _authorities(path: Path | None, info: ValidationInfo) -> Path | None:
    if path is not None:
        _must_be_encrypted(info)
        check_authorities(path)
    return path


def _certificate(path: Path | None, info: ValidationInfo) -> Path | None:
    if path is not None:
        _must_be_encrypted(info)
    return path


def _key(path: Path | None, info: ValidationInfo) -> Path | None:
    certificate = info.data.get("tls_certificate_file")
    if certificate is not None:
        check_identity(certificate, path)
    elif path is not None:
        raise ValueError("needs the certificate too; name it in …__TLS_CERTIFICATE_FILE")
    return path


def _must_be_encrypted(info: ValidationInfo) -> None:
    """A file that would never be looked at means that somebody believes to be safe."""
    url = info.data.get("url")
    if url is None:  # wrong itself, and told already
        return
    if any(address.startswith("amqp:") for address in split(url.get_secret_value())):
        raise ValueError("is of no use with amqp://, which is not encrypted; use amqps://")
    mode = tls_mode(url.get_secret_value())
    if mode in {"disable", "allow", "prefer"}:
        raise ValueError(
            f"is of no use with sslmode={mode} in the URL, which does without "
            "encryption; use sslmode=verify-full, or leave it out"
        )


AuthoritiesFile = Annotated[Path | None, AfterValidator(_authorities)]
CertificateFile = Annotated[Path | None, AfterValidator(_certificate)]
KeyFile = Annotated[Path | None, AfterValidator(_key)]


def _folders(value: object) -> object:
    if not isinstance(value, str):
        return value or ()
    # A folder's name may have commas in it.
    parts = [value] if Path(value).is_dir() else value.split(",")
    folders = tuple(_folder(part.strip()) for part in parts if part.strip())
    environments = [folder for folder in folders if is_environment(folder)]
    if len(environments) > 1:
        raise ValueError("at most one of the folders may be a whole Alembic environment (env.py)")
    return folders


def _folder(text: str) -> Path:
    """The folder of a path, or of `package:folder`, Alembic's notation for one in a package."""
    package, _, inside = text.partition(":")
    folder = Path(text)
    if inside and not folder.exists():
        folder = _place_of(package) / inside
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}")
    if is_environment(folder) and not (folder / "versions").is_dir():
        raise ValueError(f"{str(folder)!r} has an env.py, but no folder versions")
    return folder


def _place_of(package: str) -> Path:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"there is no package {package!r}; install it, or name the folder that holds it in "
            "PYTHONPATH"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def is_environment(folder: Path) -> bool:
    """Whether it is a whole Alembic environment, in place of the worker's, not only revisions."""
    return (folder / "env.py").is_file()


MigrationFolders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders)]


def _rules(rules: object) -> object:
    good = rules is None or (
        isinstance(rules, dict)
        and all(isinstance(account, str) and account for account in rules)
        and all(isinstance(patterns, list | tuple) for patterns in rules.values())
        and all(isinstance(it, str) for patterns in rules.values() for it in patterns)
    )
    if not good:
        raise ValueError(f"must look like {RULES_EXAMPLE}")
    return rules


RULES_EXAMPLE = '{"shop": ["user.*", "order.create"], "*": ["order.create"]}'


Rules = Annotated[dict[str, tuple[str, ...]] | None, BeforeValidator(_rules)]
