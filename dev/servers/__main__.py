"""`python -m dev.servers`: get the two servers, use them, stop them."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from dev.servers import foreground
from dev.servers.errors import UNREACHABLE, ServerError
from dev.servers.progress import say
from dev.servers.services import Services

REPOSITORY = Path(__file__).resolve().parents[2]
_EPILOG = """\
Servers come from WORKER_BROKER__URL and WORKER_DATABASE__URL if both are set, else from docker
compose if a Docker engine answers, else from RabbitMQ and PostgreSQL installed on this machine,
started on free ports of their own (installed with apt-get first, where that is possible).

examples:
  python -m dev.servers up && . .services/env
  python -m dev.servers run -- pytest tests
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    services = Services(REPOSITORY)
    try:
        match parsed.action:
            case "up":
                say(f"up: {services.up(keep=True)}")
                print(services.shell_file)
            case "down":
                _say_stopped(services.down())
            case "clean":
                _say_stopped(services.clean())
                say("removed .services and the data of private servers")
            case "status":
                lines, healthy = services.status()
                print("\n".join(lines))
                return 0 if healthy else UNREACHABLE
            case _:
                return _run(services, parsed.command, keep=parsed.keep)
    except ServerError as error:
        say(f"error: {error}")
        return error.code
    except OSError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _run(services: Services, command: Sequence[str], *, keep: bool) -> int:
    found = services.up(keep=keep, use=True)
    if keep:
        say(f"up: {found}")
    try:
        return foreground.run(command, services.command_environment(found.urls))
    finally:
        foreground.ignore_signals()
        services.done()


def _say_stopped(stopped: Sequence[str]) -> None:
    say(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running that we started")


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """Like a Ctrl-C: what has been begun is undone on the way out."""
    raise SystemExit(128 + signal.SIGTERM)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.servers",
        description="RabbitMQ and PostgreSQL for the demo and the tests.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("up", help="get both servers; prints the file to read with `.`")
    actions.add_parser("down", help="stop what `up` started; the data stay")
    actions.add_parser("clean", help="down, and drop the data of private servers")
    actions.add_parser("status", help="what would be used, and whether it answers")
    run = actions.add_parser("run", help="up, run a command with both URLs, stop what it started")
    run.add_argument("--keep", action="store_true", help="leave the servers running afterwards")
    run.add_argument("command", nargs="+", metavar="COMMAND", help="after --, with its arguments")
    return parser


if __name__ == "__main__":
    sys.exit(main())
