"""The result as Markdown, for a pull request."""

from __future__ import annotations

from worker.lab.repeats import Repeats, by_setting
from worker.lab.report.rows import load_name, pool_name
from worker.lab.report.words import about_rows, failed_checks, headline, title_of, troubles
from worker.lab.results import Result
from worker.lab.units import show_number, show_seconds


def render_summary(result: Result) -> str:
    """The recommendation, what is wrong, and a line for each setting."""
    good, words = headline(result)
    parts = [f"### {title_of(result)}", f"**{words}**" if good else f"🔴 **{words}**"]
    if failed_checks(result):
        parts.append(
            "\n".join(
                f"- 🔴 **{check.name}** failed ({where}): {check.words}"
                for where, check in troubles(result)
            )
        )
    if result.diagnoses:
        parts.append("\n".join(f"- ⚠️ **{each.name}**: {each.words}" for each in result.diagnoses))
    parts.append(_table(by_setting(result.points)))
    if result.recommendation is not None:
        reasons = "\n".join(f"- {reason}" for reason in result.recommendation.reasons)
        parts.append(f"<details><summary>Why</summary>\n\n{reasons}\n\n</details>")
        parts.append(f"```sh\n{result.recommendation.env}\n```")
    about = "; ".join(f"{name} {value}" for name, value in about_rows(result)[1:])
    parts.append(f"<sub>{about}</sub>")
    return "\n\n".join(parts) + "\n"


def _table(groups: list[Repeats]) -> str:
    lines = [
        "| pool | load | done/s (95 %) | wait p50 | wait p99 | latency p99 | hold mean | lost |",
        "|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in groups:
        interval = each.throughput_interval
        mark = " 🔴" if each.failed_checks else ""
        lines.append(
            f"| {pool_name(each.setting)}{mark} | {load_name(each.setting)} "
            f"| {show_number(each.throughput)} "
            f"({show_number(interval.low)}–{show_number(interval.high)}) "
            f"| {show_seconds(each.wait.p50)} | {show_seconds(each.wait.p99)} "
            f"| {show_seconds(each.latency.p99)} | {show_seconds(each.hold.mean)} "
            f"| {show_number(each.timeouts + each.dropped)} |"
        )
    return "\n".join(lines)
