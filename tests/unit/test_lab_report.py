"""The report stands for itself, obeys nothing in a result, and never hides a failed check."""

from __future__ import annotations

import csv
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.lab_results import exponential, make_about, make_point, make_result
from worker.cli import exit_code
from worker.lab.analysis import analyse
from worker.lab.durations import durations_from
from worker.lab.measured import Point, Sample
from worker.lab.report import write_report
from worker.lab.report.page import render_page
from worker.lab.report.plots import all_plots
from worker.lab.report.summary import render_summary
from worker.lab.results import Result, save_result
from worker.lab.text import sections

PLOTS = {"throughput", "wait", "heat", "time", "spectrum", "prediction", "hold"}


@pytest.fixture(scope="module")
def sweep() -> Result:
    points = []
    for size in (2, 4, 8, 16):
        for rate in (100, 200):
            point = make_point(size, rate=rate, seconds=6, room=100)
            count, mean = point.hold.seconds.count, point.hold.seconds.mean
            part = durations_from([mean / 4] * count)
            split = {
                "query_seconds": durations_from([mean / 8] * 2 * count),
                "idle_in_transaction_seconds": part,
                "commit_seconds": part,
            }
            points.append(point.model_copy(update={"hold": point.hold.model_copy(update=split)}))
        points.append(make_point(size, clients=size * 3, holds=exponential(0.02), seconds=6))
    return analyse(make_result(points))


@pytest.fixture(scope="module")
def written(sweep: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    files = write_report(sweep, folder)
    assert sorted(files) == sorted(folder.iterdir())
    return folder


class Page(HTMLParser):
    """What a browser would load, and the text that it would show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.policy = ""
        self.text = ""
        self.scripts: list[str] = []
        self._within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._within.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._within:
            self.scripts[-1] += data
        elif "style" not in self._within:
            self.text += data


@pytest.mark.long
def test_the_page_loads_nothing_and_forbids_itself_to(written: Path) -> None:
    text = (written / "report.html").read_text()
    page = Page(text)
    assert page.loads == []
    assert page.policy.startswith("default-src 'none'")
    assert "http" not in page.policy
    assert not re.findall(r"@import|url\(", text.partition("</style>")[0])
    assert "window.vegaEmbed" in page.scripts[0]


def test_every_plot_is_in_the_page_and_beside_it(written: Path) -> None:
    text = (written / "report.html").read_text()
    assert set(re.findall(r'data-plot="(\w+)"', text)) == PLOTS
    for name in PLOTS:
        assert (written / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (written / f"{name}.svg").read_text().startswith("<svg")


def test_the_recommendation_stands_on_top(sweep: Result, written: Path) -> None:
    assert sweep.recommendation is not None
    text = Page((written / "report.html").read_text()).text
    assert text.index(sweep.recommendation.sentence) < text.index("Work done by pool size")
    assert all(reason in text for reason in sweep.recommendation.reasons)
    assert sweep.recommendation.env in text


def test_tables_have_a_line_for_each_point_and_each_second(sweep: Result, written: Path) -> None:
    with (written / "points.csv").open() as file:
        points = list(csv.DictReader(file))
    with (written / "seconds.csv").open() as file:
        seconds = list(csv.DictReader(file))
    assert len(points) == len(sweep.points)
    assert len(seconds) == sum(len(point.samples) for point in sweep.points)
    for row, point in zip(points, sweep.points, strict=True):
        assert float(row["wait_p99_seconds"]) == point.wait.seconds.p99
        assert int(row["pool_size"]) == point.setting.pool_size
    assert set(Sample.model_fields) < set(seconds[0])


def doubtful(point: Point) -> Point:
    """More connections were busy than its holds explain."""
    pool = point.pool.model_copy(update={"busy_mean": point.pool.busy_mean * 2})
    return point.model_copy(update={"pool": pool})


def test_a_failed_check_is_red_everywhere_where_nothing_is_recommended(
    sweep: Result, tmp_path: Path
) -> None:
    points = [doubtful(point) for point in sweep.points]
    result = analyse(sweep.model_copy(update={"points": points}))
    assert result.recommendation is None
    write_report(result, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert '<section class="card bad" id="failed-checks">' in page
    assert '<section class="card bad" id="recommendation">' in page
    assert '<tr class="failed">' in page
    assert "🔴 failed: littles-law" in (tmp_path / "summary.md").read_text()
    assert "failed: see the report" in (tmp_path / "throughput.svg").read_text()
    with (tmp_path / "points.csv").open() as file:
        assert {row["failed_checks"] for row in csv.DictReader(file)} == {"littles-law"}


def test_a_successful_sweep_is_not_framed_in_red_for_a_probe_that_failed(
    sweep: Result, tmp_path: Path
) -> None:
    points = (*sweep.points[:-1], doubtful(sweep.points[-1]))
    result = analyse(sweep.model_copy(update={"points": points}))
    assert result.recommendation is not None
    write_report(result, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert 'class="card bad"' not in page.partition("<noscript>")[0]
    assert '<section class="card note" id="failed-checks">' in page
    assert "littles-law</strong> (pool 16+0, kept full)" in page
    assert "🔴" not in (tmp_path / "summary.md").read_text()
    assert "▫️ failed: littles-law (pool 16+0, kept full)" in (tmp_path / "summary.md").read_text()
    assert "failed: see the report" not in (tmp_path / "throughput.svg").read_text()


def test_what_was_asked_for_stands_apart_from_the_probes(sweep: Result) -> None:
    (own, load), (other, probes) = sections(sweep)
    assert (own, other) == ("Your load", "Probes")
    assert {each.setting.load for each in load} == {"open"}
    assert {each.setting.load for each in probes} == {"closed"}
    page = render_page(sweep, [])
    assert page.index("<h3>Your load</h3>") < page.index("<h3>Probes</h3>")
    assert page.count(' answer">') == 1
    summary = render_summary(sweep)
    assert summary.index("**Your load**") < summary.index("**Probes**")
    assert sweep.answer is not None
    assert f"| **{sweep.answer.pool}** | {sweep.answer.load_name} |" in summary


def test_every_axis_has_a_title(written: Path) -> None:
    shown = [*written.glob("*.svg"), *Path("docs/pool-lab").glob("*.svg")]
    assert len(shown) > len(PLOTS)
    for picture in shown:
        axes = re.findall(r'aria-label="([XY])-axis([^"]*)"', picture.read_text())
        assert {axis for axis, _ in axes} == {"X", "Y"}
        assert all(words.startswith(" titled '") for _, words in axes), picture


def test_what_a_result_holds_is_shown_and_never_obeyed(sweep: Result) -> None:
    evil = "</script><script>alert(1)</script><img src=x>"
    about = make_about(scenario=evil, settings={evil: evil}, command=(evil,))
    page = Page(render_page(sweep.model_copy(update={"about": about}), all_plots(sweep)))
    assert page.loads == []
    assert len(page.scripts) == 2
    assert evil in page.text


def test_data_cannot_end_the_script_that_holds_it(sweep: Result) -> None:
    plots = all_plots(sweep)
    plots[0].spec["description"] = "</script><img src=x>"
    page = Page(render_page(sweep, plots))
    assert page.loads == []
    specs = re.search(r"const specs = (.*);\n", page.scripts[1])
    assert specs is not None
    assert json.loads(specs[1])["throughput"]["description"] == "</script><img src=x>"


@pytest.mark.parametrize(
    ("pool_size", "words"),
    [(8, "A pool of 8+0 keeps the objective at 200/s"), (4, "A pool of 4+0 misses the objective")],
)
def test_a_run_is_judged_by_its_objective(pool_size: int, words: str) -> None:
    result = analyse(make_result([make_point(pool_size, rate=200)], kind="run"))
    assert words in render_page(result, [])


def test_a_sweep_of_one_size_says_what_it_lacks() -> None:
    result = analyse(make_result([make_point(4, rate=100, seconds=2)]))
    assert "One pool size alone" in render_page(result, all_plots(result))


def test_a_point_where_nothing_worked_makes_a_report(tmp_path: Path) -> None:
    none = durations_from([])
    point = make_point(4, rate=100, seconds=2)
    dead = point.model_copy(
        update={
            "throughput_per_second": 0.0,
            "latency_seconds": none,
            "hold": point.hold.model_copy(update={"seconds": none}),
            "wait": point.wait.model_copy(update={"seconds": none, "timeouts": 200}),
            "samples": (),
            "errors": {"08006": 200},
        }
    )
    write_report(analyse(make_result([dead, point])), tmp_path)
    assert "08006 × 200" in (tmp_path / "report.html").read_text()


def test_a_run_that_was_stopped_at_once_makes_a_report(tmp_path: Path) -> None:
    write_report(analyse(make_result([], partial=True, kind="run")), tmp_path)
    assert "stopped before its end" in (tmp_path / "report.html").read_text()


def test_the_summary_is_markdown_with_a_line_for_each_setting(sweep: Result) -> None:
    summary = render_summary(sweep)
    assert summary.startswith("### Pool lab: sweep, steady\n")
    assert summary.count("\n| 8+0 ") + summary.count("\n| **8+0** ") >= 3
    assert "```sh\nWORKER_DATABASE__POOL_SIZE=" in summary


def test_the_command_writes_the_report_where_the_result_lies(
    sweep: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    save_result(sweep, tmp_path / "result.json")
    monkeypatch.setattr(sys, "argv", ["worker", "lab", "report", str(tmp_path)])
    assert exit_code() == 0
    told = capfd.readouterr().out.splitlines()
    assert str(tmp_path / "report.html") in told
    assert all(Path(line).exists() for line in told)


def test_a_missing_extra_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("worker.lab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setattr(sys, "argv", ["worker", "lab", "report", "x"])
    assert exit_code() == 2
    assert "pip install 'command-worker[lab]'" in capfd.readouterr().err
