"""Which servers are used, how they get onto the machine, and what is remembered of them."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dev.servers import __main__ as commands
from dev.servers import environment
from dev.servers.commands import Finished
from dev.servers.compose import Compose
from dev.servers.environment import BROKER, DATABASE, Urls
from dev.servers.errors import ServerError
from dev.servers.install import Apt
from dev.servers.services import Found, Services
from dev.servers.sources import ComposeSource, PrivateSource, choose

URLS = Urls("amqp://ann:pa55@127.0.0.1:1/", "postgresql+asyncpg://ann:pa55@127.0.0.1:1/worker")


@dataclass
class Machine:
    """A runner that answers by the beginning of the command and remembers what was asked."""

    answers: Mapping[str, Finished] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    listings: list[str] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], timeout: float) -> Finished:
        line = " ".join(argv)
        self.asked.append(line)
        if " ps " in line:
            return Finished(0, self.listings.pop(0))
        for beginning, answer in self.answers.items():
            if line.startswith(beginning):
                return answer
        return Finished(0, "")


NO_DOCKER = {"docker info": Finished(1, "Cannot connect to the Docker daemon")}


# The environment


def test_nothing_in_the_environment_means_servers_of_our_own() -> None:
    assert environment.told({}, frozenset()) is None
    assert environment.told({BROKER: "", DATABASE: ""}, frozenset()) is None


def test_two_urls_in_the_environment_are_what_we_are_told() -> None:
    assert environment.told(URLS.variables(), frozenset()) == URLS


def test_urls_that_we_have_exported_are_ours_even_when_they_are_old() -> None:
    newer = Urls("amqp://127.0.0.1:2/", "postgresql://127.0.0.1:2/worker")
    assert environment.told(URLS.variables(), frozenset({URLS, newer})) is None


@pytest.mark.parametrize("given", [BROKER, DATABASE])
def test_one_url_alone_is_a_mistake(given: str) -> None:
    with pytest.raises(ServerError, match=r"set .* too, or unset") as caught:
        environment.told({given: "amqp://x/"}, frozenset())
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


def test_told_servers_that_do_not_answer_are_an_error_without_their_password(
    tmp_path: Path,
) -> None:
    services = Services(tmp_path, URLS.variables(), Machine())
    with pytest.raises(ServerError, match="does not answer") as caught:
        services.up(keep=True)
    assert caught.value.code == 4
    assert BROKER in str(caught.value)
    assert "pa55" not in str(caught.value)


def test_the_shell_file_gives_both_urls_and_our_programs_once(tmp_path: Path) -> None:
    programs = tmp_path / "it's a folder" / "bin"
    odd = Urls("amqp://a:$x`y`'z\"@h/", "postgresql://h/d")
    environment.write_shell_file(tmp_path / "env", odd, programs)
    script = f'. "$1"; . "$1"; printf "%s\\n" "${BROKER}" "${DATABASE}" "$PATH"'
    read = subprocess.run(
        ["/bin/sh", "-c", script, "sh", str(tmp_path / "env")],
        env={"PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert read.stdout.splitlines() == [odd.broker, odd.database, f"{programs}:/usr/bin"]


def test_exported_urls_are_remembered(tmp_path: Path) -> None:
    assert environment.exported(tmp_path) == frozenset()
    environment.remember(tmp_path, URLS)
    environment.remember(tmp_path, URLS)
    assert environment.exported(tmp_path) == {URLS}


# Docker


def docker(*listings: str) -> Machine:
    """An engine with our two services; each look at what runs gives the next listing."""
    compose = "docker compose -f /repo/docker-compose.yml"
    return Machine(
        {
            f"{compose} port broker": Finished(0, "0.0.0.0:40001\n"),
            f"{compose} port database": Finished(0, "127.0.0.1:40002\n"),
        },
        listings=list(listings),
    )


def test_docker_is_used_when_its_engine_and_compose_answer(tmp_path: Path) -> None:
    private = PrivateSource(tmp_path)

    def chosen(answers: Mapping[str, Finished]) -> str:
        return choose(private, lambda: Compose(tmp_path, Machine(answers)), tmp_path).name

    assert chosen({}) == "docker compose"
    assert chosen(NO_DOCKER) == private.name
    assert chosen({"docker compose version": Finished(1, "unknown command")}) == private.name


def test_compose_urls_carry_the_published_ports() -> None:
    assert Compose(Path("/repo"), docker()).up() == Urls(
        "amqp://worker:worker@127.0.0.1:40001/",
        "postgresql+asyncpg://worker:worker@127.0.0.1:40002/worker",
    )


def test_compose_says_why_it_failed() -> None:
    machine = Machine({"docker compose": Finished(1, "no such image\n")})
    with pytest.raises(ServerError, match="no such image"):
        Compose(Path("/repo"), machine).up()


def test_only_containers_that_we_have_started_are_stopped(tmp_path: Path) -> None:
    machine = docker("broker\n")
    source = ComposeSource(tmp_path, Compose(Path("/repo"), machine))
    source.up(keep=False)
    assert source.down(kept=False) == ["database (docker compose)"]
    assert machine.asked[-1].endswith(" stop database")
    assert source.down(kept=True) == []


def test_containers_that_are_wanted_for_longer_stay_after_a_run(tmp_path: Path) -> None:
    machine = docker("")
    source = ComposeSource(tmp_path, Compose(Path("/repo"), machine))
    source.up(keep=True)
    assert source.down(kept=False) == []
    assert len(source.down(kept=True)) == 2


# apt-get


def apt(tmp_path: Path, machine: Machine, *, uid: int = 0, has: str = "apt-get sudo") -> Apt:
    return Apt(
        tmp_path / "apt.log",
        runner=machine,
        which=lambda name: f"/usr/bin/{name}" if name in has.split() else None,
        uid=uid,
        policy=tmp_path / "policy-rc.d",
    )


def test_root_installs_and_others_do_so_through_sudo_without_a_password(tmp_path: Path) -> None:
    asks = Machine({"sudo -n true": Finished(1, "a password is required")})
    assert apt(tmp_path, Machine()).prefix() == []
    assert apt(tmp_path, Machine(), uid=1000).prefix() == ["sudo", "-n"]
    assert apt(tmp_path, asks, uid=1000).prefix() is None
    assert apt(tmp_path, Machine(), uid=1000, has="apt-get").prefix() is None
    assert apt(tmp_path, Machine(), has="brew").prefix() is None


def test_whoever_may_not_install_is_told_in_one_line_what_to_install(tmp_path: Path) -> None:
    for has, command in (("apt-get", "sudo apt-get install"), ("", "brew install")):
        with pytest.raises(ServerError, match=command) as caught:
            apt(tmp_path, Machine(), uid=1000, has=has).install(["RabbitMQ"])
        assert caught.value.code == 4
        assert "\n" not in str(caught.value)


def test_packages_do_not_start_their_daemons_while_we_install(tmp_path: Path) -> None:
    machine = Machine()
    apt(tmp_path, machine).install(["RabbitMQ", "PostgreSQL"])
    kinds = [line.split()[0] for line in machine.asked]
    assert kinds == ["sh", "env", "env", "rm"]
    assert "--no-install-recommends rabbitmq-server postgresql" in machine.asked[2]
    assert machine.asked[3] == f"rm -f {tmp_path / 'policy-rc.d'}"


def test_a_policy_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "policy-rc.d").write_text("#!/bin/sh\nexit 0\n")
    machine = Machine()
    apt(tmp_path, machine).install(["RabbitMQ"])
    assert [line.split()[0] for line in machine.asked] == ["env", "env"]


def test_our_policy_goes_also_when_the_installation_fails(tmp_path: Path) -> None:
    failing = "env DEBIAN_FRONTEND=noninteractive apt-get install"
    machine = Machine({failing: Finished(100, "E: Unable to locate package")})
    with pytest.raises(ServerError, match="Unable to locate package"):
        apt(tmp_path, machine).install(["PostgreSQL"])
    assert machine.asked[-1].startswith("rm -f")


# What people are told


@pytest.mark.parametrize("keep", [True, False])
def test_who_keeps_the_servers_is_told_where_they_are(
    keep: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Here(Services):
        def up(self, *, keep: bool, use: bool = False) -> Found:
            return Found(Urls("amqp://guest:guest@127.0.0.1:1/", URLS.database), None)

        def done(self) -> list[str]:
            return []

    monkeypatch.setattr(commands, "Services", Here)
    monkeypatch.setattr("dev.servers.foreground.run", lambda argv, environment: 0)
    monkeypatch.setattr("dev.servers.foreground.ignore_signals", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    assert commands.main(["run", *(["--keep"] if keep else []), "--", "true"]) == 0
    said = capsys.readouterr().err
    assert ("up: amqp://guest:***@127.0.0.1:1/ and" in said) is keep
