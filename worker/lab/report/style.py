"""Colours and fonts of the plots, for light and for dark.

The marks have colours that are told apart on both, also by most who see colours differently (after
M. Okabe and K. Ito, "Color Universal Design", 2008).
"""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#3987c9",
    "#e08e0b",
    "#1b9e77",
    "#d9483b",
    "#a06cd5",
    "#8a94a3",
)
SERIES = [BLUE, ORANGE, GREEN, PURPLE, RED, GREY]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def _config(*, ink: str, quiet: str, grid: str) -> dict[str, Any]:
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "labelColor": quiet,
            "titleColor": ink,
            "gridColor": grid,
            "domainColor": grid,
            "tickColor": grid,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 10,
            "labelOverlap": True,
        },
        "legend": {
            "labelColor": ink,
            "titleColor": quiet,
            "labelFontSize": 12,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "orient": "top",
            "symbolStrokeWidth": 2,
        },
        "title": {
            "color": ink,
            "fontSize": 16,
            "anchor": "start",
            "offset": 14,
            "subtitleColor": quiet,
        },
        "range": {"category": SERIES},
        "text": {"color": ink},
    }


LIGHT = _config(ink="#1c2530", quiet="#5a6675", grid="#e3e7ec")
DARK = _config(ink="#e6eaf0", quiet="#a3aebb", grid="#333d49")
