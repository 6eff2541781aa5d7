"""The page: one HTML file that holds all it needs, and asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from worker.lab.columns import COLUMNS, DETAILS, alone
from worker.lab.report.plots import Plot
from worker.lab.report.style import DARK, LIGHT
from worker.lab.results import Result
from worker.lab.text import about_rows, failed_checks, headline, sections, title_of, tone_of
from worker.lab.units import show_number, show_seconds, show_share


def render_page(result: Result, plots: Sequence[Plot]) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("worker.lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": show_number, "seconds": show_seconds, "share": show_share}
    failed = failed_checks(result)
    return environment.get_template("page.html").render(
        title=title_of(result),
        headline=headline(result),
        result=result,
        about=about_rows(result),
        failed=failed,
        tone=tone_of(failed),
        sections=sections(result),
        columns=COLUMNS,
        details=DETAILS,
        measurements=[alone(point) for point in result.points],
        plots=plots,
        specs=_script_json({plot.name: plot.spec for plot in plots}),
        themes=_script_json({"light": LIGHT, "dark": DARK}),
        vega=_library(),
    )


@cache
def _library() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script, out of the package that draws the pictures."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in script.lower(), "it would end the script that holds it"
    return Markup(script)  # noqa: S704 - a constant of the package


def _script_json(value: Any) -> Markup:
    """JSON that may stand within a script: nothing in it can end the script."""
    text = json.dumps(value, ensure_ascii=False)
    escaped = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(escaped)  # noqa: S704 - escaped above
