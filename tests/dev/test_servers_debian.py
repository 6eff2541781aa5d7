"""Another Debian release: how its root is made, and what a command sees that runs in it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dev.servers import debian, processes
from dev.servers.commands import Finished, run
from dev.servers.debian import RELEASE, argv_inside, environment_inside
from dev.servers.environment import BROKER, DATABASE
from dev.servers.errors import ServerError
from dev.servers.postgres import PrivatePostgres
from dev.servers.roots import Root
from dev.servers.services import Services
from tests.dev.test_servers_choices import Machine

may_mount = pytest.mark.skipif(
    os.geteuid() != 0 or not run(["unshare", "--mount", "true"], 10.0).ok,
    reason="needs root, and the right to mount",
)


@dataclass
class Debootstrap(Machine):
    """Makes the folder that it is told to make, and ends as it is told to end."""

    made: list[Path] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], timeout: float) -> Finished:
        if argv[0] == "unshare" and "sh" in argv:
            root = Path(argv[list(argv).index("sh", list(argv).index("-ec")) + 1])
            (root / "usr").mkdir(parents=True)
            self.made.append(root)
        return super().__call__(argv, timeout)


def root_of(machine: Machine, services: Path, release: str = "sid", *programs: str) -> Root:
    """A root for somebody who is root, on a machine that has these programs."""
    known = {"unshare", *(programs or ("debootstrap",))}
    which = {name: f"/usr/bin/{name}" for name in known}.get
    return Root(services, release, runner=machine, which=which, uid=0)


# How it is made


def test_a_root_is_made_once(tmp_path: Path) -> None:
    machine = Debootstrap()
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: root_of(machine, tmp_path).ensure(), range(4)):
            pass
    assert len(machine.made) == 1
    assert (tmp_path / "roots" / "sid" / "usr").is_dir()


def test_a_root_that_could_not_be_made_whole_is_begun_anew(tmp_path: Path) -> None:
    begin = "unshare --mount --pid"
    refusing = Debootstrap({begin: Finished(1, "E: No such script: sid")})
    with pytest.raises(ServerError, match="No such script"):
        root_of(refusing, tmp_path).ensure()
    assert refusing.made
    assert not (tmp_path / "roots" / "sid").exists()
    root_of(Debootstrap(), tmp_path).ensure()
    assert (tmp_path / "roots" / "sid").exists()


def test_packages_come_from_where_this_machine_has_its_own(tmp_path: Path) -> None:
    listing = (
        "Debian-Security http://mirror.example/security/\n"
        "Other http://other.example/\n"
        "Debian http://mirror.example/debian/\n"
    )
    machine = Debootstrap({"apt-get indextargets": Finished(0, listing)})
    root_of(machine, tmp_path).ensure()
    made = next(line for line in machine.asked if line.startswith("unshare --mount --pid"))
    assert " sid http://mirror.example/debian/ rabbitmq-server postgresql " in made


def test_debootstrap_is_installed_where_it_is_missing(tmp_path: Path) -> None:
    machine = Debootstrap()
    root_of(machine, tmp_path, "sid", "apt-get").ensure()
    assert any(
        line.endswith("install -y --no-install-recommends debootstrap") for line in machine.asked
    )


def test_without_apt_get_it_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="use a Debian or Ubuntu"):
        root_of(Debootstrap(), tmp_path, "sid", "true").ensure()


def test_who_is_not_root_is_told_so(tmp_path: Path) -> None:
    root = Root(tmp_path, "sid", runner=Debootstrap(), uid=1000)
    with pytest.raises(ServerError, match=r"Only root .* `sudo make … debian=sid`"):
        root.ensure()


def test_where_nothing_may_be_mounted_it_says_so(tmp_path: Path) -> None:
    machine = Debootstrap({"unshare --mount true": Finished(1, "Operation not permitted")})
    with pytest.raises(ServerError, match="CAP_SYS_ADMIN"):
        root_of(machine, tmp_path).ensure()


@pytest.mark.parametrize("release", ["../etc", "", "Sid", "sid ", "-x"])
def test_only_a_word_is_a_release(tmp_path: Path, release: str) -> None:
    with pytest.raises(ServerError, match="no Debian release") as caught:
        root_of(Debootstrap(), tmp_path, release)
    assert caught.value.code == 2


@pytest.mark.parametrize("place", ["/var/lib/build/worker", "/usr/src/worker", "/etc/worker"])
def test_a_checkout_that_the_release_would_hide_is_refused(place: str) -> None:
    with pytest.raises(ServerError, match="put the checkout elsewhere"):
        debian.check_place(Path(place))


# What a command sees in it


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with this machine's own /usr and users, and an /etc that is known by a file."""
    for name in ("etc", "var/tmp", "usr"):
        (tmp_path / "root" / name).mkdir(parents=True)
    for name in ("passwd", "group"):
        shutil.copy(f"/etc/{name}", tmp_path / "root" / "etc")
    (tmp_path / "root" / "etc" / "debian_version").write_text("of the root\n")
    return tmp_path / "root"


def inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """What the command prints in there."""
    own_usr = 'mount --rbind /usr "$1/usr"; shift; exec "$@"'
    argv = ["unshare", "--mount", "sh", "-ec", own_usr, "sh", str(root)]
    argv += argv_inside(root, command)
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@may_mount
def test_a_command_sees_the_files_of_the_release_and_all_else_of_this_machine(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "here").write_text("of this machine\n")
    mounted = Path("/proc/mounts").read_text()
    outside = Path("/etc/debian_version").read_text()

    files = ("/etc/debian_version", str(tmp_path / "here"), "/etc/hosts")
    done = inside(root, "cat", *files)

    expected = f"of the root\nof this machine\n{Path('/etc/hosts').read_text()}"
    assert done.stdout == expected, done.stderr
    assert Path("/etc/debian_version").read_text() == outside
    assert Path("/proc/mounts").read_text() == mounted


@may_mount
def test_temporary_files_are_shared(root: Path) -> None:
    done = inside(root, "mktemp", "/var/tmp/worker-test-XXXXXX")
    made = Path(done.stdout.strip())
    assert made.exists(), done.stderr
    made.unlink()


@may_mount
def test_exit_codes_and_arguments_come_through(root: Path) -> None:
    done = inside(root, "sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "--", "-x")
    assert (done.returncode, done.stdout) == (7, "a b|--|-x|")


@may_mount
def test_nothing_is_run_if_the_release_is_not_whole(root: Path) -> None:
    (root / "var" / "tmp").rmdir()
    done = inside(root, "echo", "ran")
    assert done.returncode
    assert not done.stdout


@may_mount
def test_servers_that_run_in_there_can_be_stopped_from_outside(root: Path) -> None:
    """And with the last of its processes its mounts are gone."""
    directory = root.parent / "pg"
    script = (
        "import pathlib, sys; from dev.servers import PrivatePostgres;"
        "PrivatePostgres(pathlib.Path(sys.argv[1]), outlive=True).start()"
    )
    if PrivatePostgres(directory).binaries is None:
        pytest.skip("PostgreSQL is not installed")
    done = inside(root, sys.executable, "-c", script, str(directory))
    assert done.returncode == 0, done.stderr
    server = PrivatePostgres.attach(directory)
    mounts = Path(f"/proc/{server.pid}/ns/mnt").readlink()
    assert mounts != Path("/proc/self/ns/mnt").readlink()
    server.remove()
    assert not any(_mounts_of(pid) == mounts for pid in processes.table())


def _mounts_of(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/mnt").readlink()
    except OSError:
        return None


def test_the_environment_points_to_no_program_of_this_machine() -> None:
    ours = {"PATH": "/home/ann/.local/bin:/usr/bin", "VIRTUAL_ENV": "/home/ann/.venv", "HOME": "/x"}
    inner = environment_inside(ours, "sid")
    assert inner[RELEASE] == "sid"
    assert "/home/ann" not in str(inner)
    assert inner["HOME"] == "/x"


def test_servers_of_a_release_are_its_own_whatever_the_environment_names(tmp_path: Path) -> None:
    told = {RELEASE: "sid", BROKER: "amqp://x/", DATABASE: "postgresql+asyncpg://x/x"}
    services = Services(tmp_path, told, Machine())
    assert services.directory == tmp_path / ".services" / "sid"
    lines, _ = services.status()
    assert lines[0] == "servers: private processes of this checkout"


def test_down_and_clean_reach_the_servers_of_every_release(tmp_path: Path) -> None:
    directory = tmp_path / ".services"
    (directory / "roots" / "sid").mkdir(parents=True)
    (directory / "sid").mkdir()
    server = PrivatePostgres(directory / "sid" / "postgresql", outlive=True)
    if server.binaries is None:
        pytest.skip("PostgreSQL is not installed")
    server.start()
    server.record.keep = True
    server.record.save()
    services = Services(tmp_path, {}, Machine())
    assert services.down() == [f"PostgreSQL (port {server.port})"]
    assert not server.running
    server.start()
    assert services.clean() == [f"PostgreSQL (port {server.port})"]
    assert not directory.exists()


def test_a_command_line_without_a_command_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        debian.main(["sid", "--"])
    assert caught.value.code == 2
    assert "name a command" in capsys.readouterr().err
