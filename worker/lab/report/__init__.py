"""What a result looks like: a page, plots, tables, and a summary for a pull request."""

from __future__ import annotations

from pathlib import Path

from worker.lab.report.page import render_page
from worker.lab.report.plots import all_plots, save_plot
from worker.lab.report.summary import render_summary
from worker.lab.report.tables import write_tables
from worker.lab.results import Result
from worker.lab.text import failed_checks, tone_of
from worker.lab.units import counted


def write_report(result: Result, folder: Path) -> list[Path]:
    """Write all that a result looks like into a folder, which is made; return the files.

    `report.html` stands for itself: it needs no other file and no network. The result must have
    been analysed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = all_plots(result)
    page, summary = folder / "report.html", folder / "summary.md"
    page.write_text(render_page(result, plots), encoding="utf-8")
    summary.write_text(render_summary(result), encoding="utf-8")
    failed = failed_checks(result)
    bad = tone_of(failed) == "bad"
    warning = f"{counted(len(failed), 'check')} failed: see the report" if bad else None
    pictures = [file for plot in plots for file in save_plot(plot, folder, warning=warning)]
    return [page, summary, *write_tables(result, folder), *pictures]
