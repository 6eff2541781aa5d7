"""From runs to rows, ratios and verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dev.benchmarks.__main__ import main
from dev.benchmarks.catalogue import CONTENDERS
from dev.benchmarks.drain import Run
from dev.benchmarks.figures import Spread
from dev.benchmarks.results import document, rows, speeds, targets
from dev.benchmarks.rounds import Outcome, order
from dev.benchmarks.tables import contenders_sheet, for_markdown, remarks, targets_sheet
from dev.benchmarks.tally import Tally
from dev.benchmarks.targets import Target, reached
from dev.benchmarks.usage import Usage

pytestmark = pytest.mark.long

RUN = Run(
    contender="worker",
    commands=1_000,
    rate=4_000,
    usage=Usage(200, 100, None),
    peak_bytes=90_000_000,
    tally=Tally(),
)


def outcome(round_: int, name: str, rate: float, **changes: Any) -> Outcome:
    return Outcome(round_, name, replace(RUN, contender=name, rate=rate, **changes))


OUTCOMES = [
    outcome(1, "worker", 3_000),
    outcome(1, "faststream", 400),
    outcome(1, "worker", 5_000),
    outcome(2, "worker", 2_000, peak_bytes=95_000_000),
    outcome(2, "faststream", 100),
    outcome(3, "worker", 8_000),
    Outcome(3, "faststream", failure="faststream: ended with exit code 1"),
]
PAIR = [CONTENDERS["faststream"], CONTENDERS["worker"]]


def test_a_row_has_medians_and_the_pairs_of_each_round() -> None:
    worker, faststream = rows(PAIR, OUTCOMES)
    assert worker.contender.name == "worker"
    assert worker.rate == Spread(4_000, 2_000, 8_000)
    assert worker.behind is None
    assert worker.peak_bytes == 95_000_000
    assert faststream.rate == Spread(250, 100, 400)
    # 3,000 and 5,000 around 400, and 2,000 before 100; not the ratio of the medians, which is 16.
    assert faststream.behind == Spread(15, 10, 20)
    assert faststream.cpu == {"contender": 200, "broker": 100, "database": None}
    assert faststream.remarks == ("round 3: faststream: ended with exit code 1",)


def test_everybody_is_compared_with_the_reference_around_it() -> None:
    # The machine slows down to half within the round, and nobody's speed changes by that.
    slowing = [
        outcome(1, "worker", 4_000),
        outcome(1, "faststream", 390),
        outcome(1, "worker", 3_800),
        outcome(1, "nothing", 1_500),
        outcome(1, "plain", 300),
        outcome(1, "worker", 2_200),
    ]
    found = speeds(slowing)
    assert found["faststream"] == {1: 0.1}
    assert found["nothing"] == {1: 0.5}
    assert found["plain"] == {1: 0.1}
    assert found["worker"] == {1: 1}


def test_without_the_reference_plain_rates_are_compared() -> None:
    assert speeds(OUTCOMES[1:2]) == {"faststream": {1: 400}}
    # A round whose reference failed cannot be compared with the others.
    assert speeds([*OUTCOMES[:2], outcome(2, "faststream", 400)])["faststream"].keys() == {1}


def test_a_run_that_lost_something_has_no_rate_and_is_told() -> None:
    lost = [outcome(1, "worker", 9_999, tally=Tally(lost=2)), OUTCOMES[1]]
    assert "worker" not in speeds(lost)
    last = rows(PAIR, lost)[-1]
    assert last.contender.name == "worker"
    assert last.rate is None
    assert last.remarks == ("round 1: 2 lost",)


TARGET = Target("a : b", ("worker", "worker-2"), ("faststream", "faststream-2"), 8, 12)


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(7.9, "not met"), (8, "met"), (11.9, "met"), (12, "aim met")],
)
def test_a_target_is_met_by_the_median_of_its_pairs(ratio: float, verdict: str) -> None:
    rates = {
        "worker": {1: 1.0},
        "worker-2": {1: 100 * ratio, 2: 50 * ratio, 3: 10_000},
        "faststream": {1: 100.0, 2: 50.0, 3: 90.0},
        "faststream-2": {1: 1.0, 2: 1.0, 3: 1.0},
    }
    found = reached(TARGET, rates)
    assert found.ratio is not None
    assert found.ratio.median == pytest.approx(ratio)
    assert found.verdict == verdict


def test_a_target_without_all_of_its_peers_is_not_measured() -> None:
    found = reached(TARGET, {"worker": {1: 100}, "faststream": {1: 1}})
    assert found.verdict == "not measured"
    assert [each.verdict for each in targets([])] == ["not measured"] * 6


def test_each_round_has_everybody_once_in_another_order_and_the_reference_in_between() -> None:
    everybody = [*CONTENDERS.values()]
    rounds = order(everybody, rounds=3, seed=1)
    names = [[each.name for each in one] for one in rounds]
    for one in names:
        assert one[0] == one[-1] == "worker"
        assert sorted({*one}) == sorted(CONTENDERS)
        assert all(one.count(name) == 1 for name in CONTENDERS if name != "worker")
        assert all("worker" in one[start : start + 4] for start in range(len(one) - 3))
    assert names[0] != names[1] != names[2]
    assert rounds == order(everybody, rounds=3, seed=1)
    alone = order([CONTENDERS["plain"], CONTENDERS["nothing"]], rounds=1, seed=1)
    assert sorted(each.name for each in alone[0]) == ["nothing", "plain"]


def test_the_tables_say_what_was_measured_and_what_went_wrong() -> None:
    made = document(PAIR, OUTCOMES, skipped={"pgbench": "it is not there"})
    shown = for_markdown(contenders_sheet(made))
    assert "| worker | 4,000 | 2,000 to 8,000 | – | 200 | 100 | – | 95 |" in shown
    assert "| 250 | 100 to 400 | 15.0 (10.0 to 20.0) |" in shown
    assert "| 12 | 20 | 15.00 | 10.00 to 20.00 | met |" in for_markdown(targets_sheet(made))
    assert [*remarks(made)] == [
        "faststream, round 3: faststream: ended with exit code 1",
        "pgbench did not take part: it is not there",
    ]


@pytest.mark.parametrize(
    ("argument", "said"),
    [("--only=wrker", "'wrker' is no contender; there are worker,"), ("--rounds=0", "less than 1")],
)
def test_a_wrong_argument_is_told_by_name(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main([argument])
    assert exited.value.code == 2
    assert said in capsys.readouterr().err


def test_without_servers_it_says_what_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORKER_BROKER__URL", raising=False)
    assert main(["--only=worker"]) == 2
    assert "run `make bench`" in capsys.readouterr().err


@pytest.mark.servers
def test_the_whole_of_it_measures_prints_writes_and_draws(
    broker_url: str, server_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--rounds=1", "--commands=1000", "--only=worker,nothing", f"--output={tmp_path}"])
    assert code == 0
    made = json.loads((tmp_path / "benchmarks.json").read_text())
    assert {each["name"] for each in made["contenders"]} == {"worker", "nothing"}
    assert all(each["rate"]["median"] > 100 for each in made["contenders"])
    assert [each["contender"] for each in made["rounds"]] == ["worker", "nothing", "worker"]
    verdicts = {each["what"]: each["verdict"] for each in made["targets"]}
    assert verdicts["worker : handler that only publishes an event"] != "not measured"
    assert "worker : FastStream, one process each" in capsys.readouterr().out
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    assert "aio-pika handler" in (tmp_path / "rates.svg").read_text()
