"""What a worker could only set aside is not sent: there is no broker here, and it ends with 2."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.in_process import InProcess
from worker.broker.topology import Topology
from worker.cli.command_lines import read_commands
from worker.cli.outgoing import publication_of
from worker.cli.terminal import Misused
from worker.codec.codec import Codec
from worker.core.registry import load_registry
from worker.settings.settings import BrokerSettings

ANN = ("username=ann", "email=ann@example.com")
CREATE = ("publish", "user.create", *ANN)
UPDATE = ("publish", "user.update", "rating=1", "--target", "id=1")

WRONG = [
    (("publish", "user.create"), "/data/username is missing; /data/email is missing"),
    (("publish", "user.create", "--data", "{}"), "/data/username is missing"),
    (("publish", "user.create", "--data", "null"), "--data must be an object"),
    (("publish", "user.create", "--data", "[]"), "--data must be an object"),
    (("publish", "user.create", "username=ann"), "/data/email is missing"),
    (("publish", "user.create", "username=ann", "email=nobody"), "/data/email"),
    (("publish", "user.create", *ANN, "rating=high"), "/data/rating"),
    (("publish", "user.create", *ANN, "colour=red"), "/data/colour is not known here"),
    (("publish", "user.create", "username=", "email=ann@example.com"), "/data/username"),
    ((*CREATE, "--id", ""), "--id must be a string of 1 to 200 characters"),
    ((*CREATE, "--id", "x" * 201), "--id must be a string of 1 to 200 characters"),
    ((*CREATE, "--id", "a\nb"), "--id must not contain control characters"),
    ((*CREATE, "--id", "\udcff"), "half of a surrogate pair"),
    ((*CREATE, "--key", ""), "--key must be a string of 1 to 1000 characters"),
    ((*CREATE, "--key", "x" * 1_001), "--key must be a string of 1 to 1000 characters"),
    ((*CREATE, "--expected-version", "1"), "--expected-version must not be given"),
    ((*UPDATE, "--expected-version", "0"), "--expected-version must be a whole number from 1"),
    ((*UPDATE, "--expected-version", "-1"), "--expected-version must be a whole number from 1"),
    ((*UPDATE, "--expected-version", "9" * 12), "--expected-version must be a whole number"),
    ((*CREATE, "--target", "id=1"), "--target must not be given for this command"),
    (("publish", "user.update", "rating=1"), "--target must be an object with exactly one of: id"),
    (("publish", "user.update", "rating=1", "--target", "id=x"), "/target/id"),
    (("publish", "user.update", "rating=1", "--target", "id=0"), "/target/id"),
    (("publish", "user.update", "rating=1", "--target", "size=1"), "/target/size"),
    (("publish", "user.update", "--target", "id=1"), "--data names no field to change"),
    (("publish", "user.delete"), "--target must be an object"),
    (("publish", "user.delete", "a=1", "--target", "id=1"), "--data must not be given"),
    (("publish", "user.create", "--data", '{"a": 1, "a": 2}'), "the same member twice"),
    (("publish", "order.create", "--data", '{"user": {"id": 1, "id": 1}}'), "member twice"),
    (("publish", "order.create", 'user={"id": 1, "id": 1}'), "the same member twice"),
    (("publish", "user.create", *ANN, "--data", '{"rating": NaN}'), "NaN is not JSON"),
    (("publish", "user.create", *ANN, "--data", '{"rating": Infinity}'), "Infinity is not JSON"),
    (("publish", "user.create", *ANN, "--data", '{"rating": 1e999}'), "out of range"),
    (("publish", "user.create", *ANN, "--data", '{"rating": ' + "9" * 5_000 + "}"), "out of range"),
    (("publish", "user.create", *ANN, "--data", '{"rating": 1'), "--data: it is not JSON"),
    (("publish", "user.create", *ANN, "--data", "[" * 100_000), "nested too deeply"),
    (
        (
            "publish",
            "order.create",
            "--data",
            '{"user": {"id": 1}, "x": ' + "[" * 200 + "]" * 200 + "}",
        ),
        "nested more than 100 deep",
    ),
    (("publish", "user.create", *ANN, "--data", '{"username": "\\u0000"}'), "username is given"),
    (("publish", "user.create", "--data", '{"username": "a\\u0000"}'), "U+0000"),
    (("publish", "user.create", *ANN, "username=bob"), "username is given twice"),
    (("publish", "user.create", *ANN, "--data", '{"email": "a@b.de"}'), "email is given twice"),
    (("publish", "order.create", "user.id=1", "user.id=2"), "user.id is given twice"),
    (("publish", "user.craete"), "Did you mean user.create?"),
    (("publish", "user.create", "username"), "not of the form field=value"),
    (("publish", "user.create", "a=1", "--data", "[]"), "--data is no JSON object"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=range(len(WRONG)))
def test_a_command_that_no_worker_could_use_is_refused_before_it_is_sent(
    in_process: InProcess, arguments: tuple[str, ...], words: str
) -> None:
    result = in_process(*arguments, code=2)

    assert words in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""


def test_one_that_is_too_large_is_refused(in_process: InProcess) -> None:
    large = ("publish", "user.delete", "--target", "id=1", "--key", "k" * 1_000)
    result = in_process(*large, code=2, WORKER_MAX_BODY_BYTES="1000")

    assert "at most 1000 are read" in result.err


def test_what_a_worker_may_use_is_sent(in_process: InProcess) -> None:
    for good in (CREATE, UPDATE, (*UPDATE, "--expected-version", "1", "--key", "k", "--id", "i")):
        assert "RabbitMQ cannot be reached" in in_process(*good, code=4).err


def test_no_more_faults_are_told_than_one_reads() -> None:
    codec, topology = Codec(load_registry("worker.entities")), Topology("w", BrokerSettings())
    data = {f"field{number}": 1 for number in range(9)}
    with pytest.raises(Misused, match=r"; and 6 more$"):
        publication_of(topology, codec, {"id": "x", "type": "user.create", "data": data})


LINES = {
    "[1]": "it is no JSON object",
    '{"type": "user.dleete"}': "Did you mean user.delete?",
    '{"id": "x"}': 'it has no "type"',
    "[" * 100_000: "it is nested too deeply",
    "\udcff": "byte 1 is not UTF-8",
    '{"type": "user.delete", "target": {"id": 1}, "target": {"id": 2}}': "the same member twice",
    '{"type": "user.delete", "target": {"id": 1}, "id": ""}': "/id must be a string of 1 to 200",
    '{"type": "user.delete", "target": {"id": 1}, "id": 7}': "/id must be a string of 1 to 200",
    '{"type": "user.delete", "target": {"id": NaN}}': "NaN is not JSON",
    '{"type": "user.delete", "target": {"id": 1}, "key": ""}': "/key must be a string",
    '{"type": "user.delete", "target": {"id": 1}, "colour": 1}': "/colour is not known here",
    '{"type": "user.create"}': "/data must be an object",
}


@pytest.mark.parametrize(("line", "words"), LINES.items(), ids=range(len(LINES)))
async def test_a_line_that_no_worker_could_use_is_told_with_its_number(
    tmp_path: Path, line: str, words: str
) -> None:
    good = json.dumps({"type": "user.delete", "target": {"id": 1}})
    path = tmp_path / "commands.ndjson"
    path.write_bytes(f"{good}\n\n{line}\n{good}".encode(errors="surrogateescape"))
    registry = load_registry("worker.entities")
    make = partial(publication_of, Topology("w", BrokerSettings()), Codec(registry))
    with path.open("rb") as file:
        commands = read_commands(file.fileno(), registry, 1_000_000, make)
        assert (await anext(commands)).number == 1
        with pytest.raises(Misused, match=r"^line 3: ") as caught:
            await anext(commands)

    assert words in str(caught.value)
    assert str(caught.value).endswith(". Nothing after it was published")
