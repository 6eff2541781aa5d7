"""`worker migration`: write what is to change in the database for the entities as they are."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.prepare import read_settings
from worker.cli.terminal import emit, say
from worker.core.errors import Misconfigured

if TYPE_CHECKING:
    from worker.settings.settings import Settings


def migration(
    message: Annotated[
        str, typer.Argument(metavar="MESSAGE", help="What it does, such as `add products`.")
    ],
) -> None:
    """Write a migration: what the entities have that the database does not, and the reverse.

    The database must be at the newest revision (`worker migrate`). The file goes into the last
    folder of WORKER_MIGRATIONS; look at what was written before you apply it. Prints its path, and
    nothing where there is nothing to change.

    \b
    Example:
      WORKER_MIGRATIONS=shop:migrations worker migration "add products"
    """
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from worker.database.engine import make_engine
    from worker.database.errors import explain

    settings = read_settings()
    folder = _folder(settings)
    try:
        path = _write(settings, folder, message)
    except CommandError as error:
        raise Misconfigured(
            f"What has changed cannot be told: {error} Bring the database to the newest revision "
            "first, with: worker migrate"
        ) from error
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, make_engine(settings.database)) from error
    if path is None:
        say("nothing to write: the database is as the entities need it")
    else:
        emit(path)


def _folder(settings: Settings) -> Path:
    """Where the migration belongs."""
    import worker
    from worker.database.migration_folders import further
    from worker.database.migrations import alembic_config

    if folders := further(settings.migrations):
        return folders[-1]
    environment = Path(
        alembic_config(*settings.migrations).get_main_option("script_location") or ""
    )
    if environment.is_relative_to(Path(worker.__file__).parent):
        raise Misconfigured(
            "WORKER_MIGRATIONS names no folder for migrations of your own: make one in the package "
            "of your entities and name it, as in WORKER_MIGRATIONS=shop:migrations"
        )
    return environment / "versions"


def _write(settings: Settings, folder: Path, message: str) -> str | None:
    """The path of the new file; `None` where nothing has changed."""
    from alembic import command
    from alembic.script import ScriptDirectory

    from worker.database.migration_folders import further
    from worker.database.migrations import alembic_config

    # On top of what this folder's are made for: other packages, and their folders, may come and go.
    others = [each for each in further(settings.migrations) if each != folder]
    theirs = [each for each in settings.migrations if each not in others]
    # Several where the worker has brought a migration since the last one here.
    below = ScriptDirectory.from_config(alembic_config(*theirs)).get_heads()
    config = alembic_config(*settings.migrations)
    config.cmd_opts = Namespace(quiet=True)
    script = command.revision(
        config,
        message,
        autogenerate=True,
        head=below,  # type: ignore[arg-type]  # takes several, too
        splice=True,
        version_path=str(folder),
        process_revision_directives=_without_empty,
    )
    return getattr(script, "path", None)


def _without_empty(_context: Any, _revision: Any, directives: list[Any]) -> None:
    if directives[0].upgrade_ops.is_empty():
        directives.clear()
