"""`python3 -m dev.servers.debian RELEASE -- COMMAND`: run it with that Debian's programs.

The command sees this machine as it is, files, network, processes and all, but for /usr, /etc and
/var: those are the release's. So Python, RabbitMQ and PostgreSQL, and whatever a test starts by
name, come out of the same release, with no word of it in the code that starts them. The mounts
belong to the command and its children alone; the last of them that ends takes them along.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.servers.errors import ServerError
from dev.servers.progress import say
from dev.servers.roots import Root

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE = "DEBIAN_RELEASE"
"""The variable that tells a command inside where it is."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REPLACED = ("/etc", "/var", "/usr")
# What belongs to the machine and its network stays, and so do temporary files. /usr comes last:
# from then on `mount` is the release's own.
_ENTER = """\
root=$1; shift
for name in resolv.conf hosts hostname pip.conf ssl/certs/ca-certificates.crt; do
  test -e "/etc/$name" || continue
  test -e "$root/etc/$name" || install -D /dev/null "$root/etc/$name"
  mount --bind "/etc/$name" "$root/etc/$name"
done
mount --bind /var/tmp "$root/var/tmp"
for name in etc var usr; do mount --rbind "$root/$name" "/$name"; done
exec "$@"
"""


def argv_inside(root: Path, command: Sequence[str]) -> list[str]:
    """The command, run with the programs of this root; becomes the command itself, same pid."""
    return ["unshare", "--mount", "sh", "-ec", _ENTER, "sh", str(root), *command]


def environment_inside(environ: Mapping[str, str], release: str) -> dict[str, str]:
    """Without what points to programs of this machine."""
    kept = {name: value for name, value in environ.items() if name != "VIRTUAL_ENV"}
    return {**kept, "PATH": _PATH, RELEASE: release}


def check_place(repository: Path) -> None:
    """Raise if the release would hide the checkout itself, or this machine is laid out of old."""
    for name in _REPLACED:
        if repository.is_relative_to(name):
            raise ServerError(
                f"{repository} lies in {name}, which is the release's when a command runs in "
                "another Debian release: put the checkout elsewhere, such as below /home."
            )
    if not Path("/lib").is_symlink():
        raise ServerError(
            "On this machine /lib is a folder of its own, so that another release's /usr does not "
            "fit: use a Debian ≥ 12 or Ubuntu ≥ 20.04."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, if the command could not be run; else this process becomes the command."""
    release, command = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        if os.environ.get(RELEASE) == release:
            os.execvp(command[0], command)  # we are inside already
        check_place(REPOSITORY)
        root = Root(REPOSITORY / ".services", release)
        root.ensure()
        environment = environment_inside(os.environ, release)
        os.execvpe("unshare", argv_inside(root.path, command), environment)
    except ServerError as error:
        say(f"error: {error}")
        return error.code
    except OSError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The release and the command, which may have a `--` of its own."""
    parser = argparse.ArgumentParser(
        prog="python3 -m dev.servers.debian",
        usage="%(prog)s RELEASE -- COMMAND …",
        description="Run a command with the programs of another Debian release.",
        epilog="example: python3 -m dev.servers.debian sid -- python3 --version",
    )
    parser.add_argument("release", help="such as bookworm, trixie or sid; fetched once")
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parsed = parser.parse_args(arguments[:at])
    if not arguments[at + 1 :]:
        parser.error("name a command after --")
    return parsed.release, list(arguments[at + 1 :])


if __name__ == "__main__":
    sys.exit(main())
