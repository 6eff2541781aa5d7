"""The two URLs: in the environment, in `.services/env`, and in what we tell people."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.servers.errors import MISUSED, ServerError
from dev.servers.record import replace

BROKER = "WORKER_BROKER__URL"
DATABASE = "WORKER_DATABASE__URL"


@dataclass(frozen=True)
class Urls:
    """Where the worker finds its two servers."""

    broker: str
    database: str

    def variables(self) -> dict[str, str]:
        """As the worker's settings want them."""
        return {BROKER: self.broker, DATABASE: self.database}


def redacted(url: str) -> str:
    """The same URL with its password hidden, for messages."""
    return re.sub(r"(://[^:/@]*):[^@]+@", r"\1:***@", url)


def told(environ: Mapping[str, str], ours: frozenset[Urls]) -> Urls | None:
    """The servers that the user has named; URLs that we exported ourselves do not count.

    A terminal that has read `.services/env` carries our URLs, and old ones of ours too if a port
    has changed since: both mean "yours", not "mine".
    """
    broker, database = environ.get(BROKER, ""), environ.get(DATABASE, "")
    if not broker and not database:
        return None
    if not broker or not database:
        given, missing = (BROKER, DATABASE) if broker else (DATABASE, BROKER)
        raise ServerError(
            f"{given} is set and {missing} is not, so half of the servers is unknown: "
            f"set {missing} too, or unset {given}.",
            code=MISUSED,
        )
    urls = Urls(broker, database)
    return None if urls in ours else urls


def write_shell_file(path: Path, urls: Urls, programs: Path) -> None:
    """What a second terminal reads with `. .services/env`."""
    quoted = shlex.quote(str(programs))
    lines = [
        "# Written by `python -m dev.servers up`; read it with `. .services/env`.",
        *(f"export {name}={shlex.quote(value)}" for name, value in urls.variables().items()),
        # Read twice, it must not put the folder in front twice.
        f'case "$PATH" in {quoted}:*) ;; *) export PATH={quoted}:"$PATH" ;; esac',
    ]
    # The URLs may be the user's own, with a password in them.
    replace(path, "\n".join(lines) + "\n", mode=0o600)


def exported(services: Path) -> frozenset[Urls]:
    """The URLs of servers of ours that `.services/env` has ever held."""
    try:
        pairs = json.loads((services / "exported.json").read_text(encoding="utf-8"))
        return frozenset(Urls(broker, database) for broker, database in pairs)
    except (OSError, ValueError):
        return frozenset()


def remember(services: Path, urls: Urls) -> None:
    """Add to what `exported` knows."""
    known = exported(services)
    if urls not in known:
        pairs = sorted((each.broker, each.database) for each in known | {urls})
        replace(services / "exported.json", json.dumps(pairs, indent=2) + "\n", mode=0o600)
