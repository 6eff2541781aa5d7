"""The folders that migrations come from: the worker's own, and those of its user's entities.

A folder with an `env.py` is a whole Alembic environment. Any other holds revisions only, on top of
the environment's: so each package can bring a branch of its own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from worker.settings.types import is_environment


def environment_among(folders: Sequence[Path]) -> Path | None:
    """The folder that stands in place of the worker's own, if there is one."""
    return next(filter(is_environment, folders), None)


def further(folders: Sequence[Path]) -> list[Path]:
    """The folders that hold revisions only."""
    return [folder for folder in folders if not is_environment(folder)]


def config_of(environment: Path, folders: Sequence[Path]) -> Config:
    """Alembic's configuration for an environment, and for what the folders hold beside it."""
    versions = [environment / "versions", *further(folders)]
    options = {
        "script_location": str(environment),
        "version_locations": os.pathsep.join(map(str, versions)),
        "path_separator": "os",
        "file_template": "%(year)d%(month).2d%(day).2d_%(slug)s",
        "timezone": "UTC",
    }
    config = Config()
    for name, value in options.items():
        config.set_main_option(name, value.replace("%", "%%"))
    return config


def reached(scripts: ScriptDirectory, revisions: Collection[str]) -> set[str]:
    """These revisions and all that come before them.

    Where one depends on another branch's, the database names it alone, and not that one.
    """
    if not revisions:
        return set()
    upper = tuple(revisions)
    return {script.revision for script in scripts.iterate_revisions(upper, "base")}
