"""What the benchmarks' commands share: options, an end in order, what was kept, what is written."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from dev.benchmarks import machine
from dev.benchmarks.arena import NoServers, Place
from dev.benchmarks.contender import ROOT
from dev.benchmarks.process import ContenderFailed

PUBLISHED = ROOT / "docs" / "benchmarks"


def make_parser(
    name: str, description: str, epilog: str, *, rounds: int
) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has; `rounds` is how many are usual."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=positive, default=rounds, help=f"how often all is measured ({rounds})"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks"), help="folder to write to (benchmarks)"
    )
    parser.add_argument("--publish", action="store_true", help="also update the docs")
    return parser


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def run(command: Callable[[Console], int], *, soft_wrap: bool = True) -> int:
    """The exit code of a command that tells on stderr how it comes along.

    2 without servers, 1 if a contender failed, 130 after Ctrl-C or SIGTERM, which end what was
    started in order; else the command's own.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=soft_wrap)
    try:
        with terminated_as_interrupted():
            return command(console)
    except (NoServers, ContenderFailed) as error:
        console.print(f"error: {error}")
        return 2 if isinstance(error, NoServers) else 1
    except KeyboardInterrupt:
        return 130


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C, so that nothing that was started is left behind."""
    # A shell has background jobs ignore SIGINT.
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(
            signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)
        ),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def circumstances(place: Place) -> dict[str, Any]:
    """When and on what it was measured."""
    return {
        "measured_on": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.machine(),
        "servers": await machine.server_versions(place),
        "libraries": machine.libraries(),
    }


def kept(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """What an earlier run has written, if this one is to add to it."""
    path = options.output / name
    found: dict[str, Any] = json.loads(path.read_text()) if options.add and path.exists() else {}
    return found


def write(
    options: argparse.Namespace, console: Console, write_into: Callable[[Path], Iterable[Path]]
) -> None:
    """Have the files written, into the docs too if they are to be published, and name them."""
    for folder in [options.output, *([PUBLISHED] if options.publish else [])]:
        folder.mkdir(parents=True, exist_ok=True)
        for path in write_into(folder):
            console.print(f"wrote {os.path.relpath(path)}")
    if options.publish:
        subprocess.run([sys.executable, "-m", "dev.docs.generate"], cwd=ROOT, check=True)


def write_json(path: Path, document: Mapping[str, Any], *, indent: int | None = 1) -> Path:
    """Write a document; the path again."""
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=False) + "\n")
    return path
