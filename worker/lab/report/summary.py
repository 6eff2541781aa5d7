"""The result as Markdown, for a pull request."""

from __future__ import annotations

from worker.lab.columns import brief, cells
from worker.lab.repeats import Repeats
from worker.lab.results import Result
from worker.lab.setting import Setting
from worker.lab.text import Tone, about_rows, failed_checks, headline, sections, title_of

MARKS: dict[Tone, str] = {"bad": "🔴", "warning": "⚠️", "note": "▫️"}


def render_summary(result: Result) -> str:
    """The answer, what is wrong, and a line for each setting."""
    good, words = headline(result)
    parts = [f"### {title_of(result)}", f"**{words}**" if good else f"🔴 **{words}**"]
    if failed := failed_checks(result):
        parts.append("\n".join(f"- {MARKS[each.tone]} failed: {each}" for each in failed))
    if result.diagnoses:
        parts.append("\n".join(f"- ⚠️ **{each.name}**: {each.words}" for each in result.diagnoses))
    for title, groups in sections(result):
        parts += [f"**{title}**", _table(groups, result.answer)]
    if result.recommendation is not None:
        reasons = "\n".join(f"- {reason}" for reason in result.recommendation.reasons)
        parts.append(f"<details><summary>Why</summary>\n\n{reasons}\n\n</details>")
        parts.append(f"```sh\n{result.recommendation.env}\n```")
    about = "; ".join(f"{name} {value}" for name, value in about_rows(result)[1:])
    parts.append(f"<sub>{about}</sub>")
    return "\n\n".join(parts) + "\n"


def _table(groups: list[Repeats], answer: Setting | None) -> str:
    columns = brief()
    lines = [[column.title for column in columns], ["---:"] * len(columns)]
    for group in groups:
        pool, *others = cells(columns, group)
        pool = f"**{pool}**" if group.setting == answer else pool
        lines.append([f"{pool} ✗" if group.failed_checks else pool, *others])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
