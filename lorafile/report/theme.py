"""One look for every chart: Okabe and Ito's colours (safe for colour-blind readers), on light and on dark pages."""

from typing import Any, Literal

Mode = Literal["light", "dark"]

# https://jfly.uni-koeln.de/color/ (Okabe & Ito, 2008); lighter variants of the same hues on dark pages.
CATEGORIES: dict[Mode, list[str]] = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B37B00", "#3A9BD9", "#6B6B6B"],
    "dark": ["#56B4E9", "#FF8F4A", "#2FC79A", "#E3A3C6", "#E69F00", "#8FD0FF", "#B5B5B5"],
}
_INK = {  # on light and on dark pages
    "text": ("#1b1f24", "#e8ebef"),
    "quiet": ("#59636e", "#a3adb8"),
    "grid": ("#e4e8ec", "#333b45"),
    "page": ("#ffffff", "#14181d"),
    "cost": ("#8db9d6", "#40698a"),
    "alarm": ("#b34700", "#ff8f4a"),
    "focus": ("#0072b2", "#56b4e9"),
}
INK: dict[Mode, dict[str, str]] = {
    "light": {name: light for name, (light, _) in _INK.items()},
    "dark": {name: dark for name, (_, dark) in _INK.items()},
}
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"

_LABELS = {"labelFontSize": 12, "labelLimit": 260}  # a name may be of any length
_TITLE = {"fontSize": 14, "fontWeight": 600, "offset": 12, "anchor": "start", "limit": 900}


def config(mode: Mode) -> dict[str, Any]:
    """Return the Vega-Lite configuration of a page's mode; the charts' own marks name its styles."""
    ink, colours = INK[mode], CATEGORIES[mode]
    ramp = {"scheme": "viridis", "extent": [0.0, 0.85] if mode == "light" else [0.3, 1.0]}
    cells = {"scheme": "viridis", "extent": [0.1, 0.95]}  # in both modes, so that one ink reads on each cell
    return {
        "background": ink["page"],
        "font": FONT,
        "view": {"stroke": None},
        "text": {"limit": 420},
        "axis": {
            "labelColor": ink["text"],
            "titleColor": ink["quiet"],
            "gridColor": ink["grid"],
            "domainColor": ink["quiet"],
            "tickColor": ink["quiet"],
            **_LABELS,
            **{"titleFontSize": 12, "titleFontWeight": 400, "titlePadding": 8, "labelPadding": 6},
        },
        "legend": {"labelColor": ink["text"], "titleColor": ink["quiet"], "symbolStrokeWidth": 2, **_LABELS},
        "title": {**_TITLE, "color": ink["text"]},
        "header": {"labelColor": ink["text"], "titleColor": ink["quiet"], "labelFontWeight": 600, **_LABELS},
        "range": {"category": colours, "ordinal": ramp, "ramp": ramp, "heatmap": cells},
        "style": _styles(ink, colours),
    }


def _styles(ink: dict[str, str], colours: list[str]) -> dict[str, Any]:
    blue, vermillion = colours[0], colours[1]
    return {
        "seed": {"filled": True, "color": blue, "size": 26, "opacity": 0.45, "shape": "circle"},
        "mean": {"filled": True, "color": blue, "size": 80, "opacity": 1, "shape": "diamond"},
        "mean-line": {"color": blue, "strokeWidth": 2, "interpolate": "linear"},
        "spread": {"color": blue, "strokeWidth": 2, "opacity": 0.9},
        "step": {"color": blue, "strokeWidth": 1, "opacity": 0.5},
        "simultaneous": {"color": blue, "strokeWidth": 1, "opacity": 0.7},
        "margin": {"color": ink["grid"], "opacity": 0.9},
        "band": {"opacity": 0.15},
        "curve": {"strokeWidth": 1.6},
        "validation-curve": {"strokeWidth": 1.6, "strokeDash": [4, 3]},
        "chosen-step": {"filled": False, "size": 70, "strokeWidth": 2, "opacity": 1},
        "trained-point": {"filled": False, "color": ink["quiet"], "size": 90, "shape": "square", "strokeWidth": 2},
        "lost": {"color": vermillion, "fontSize": 12, "fontWeight": 600},
        "lost-point": {"color": vermillion, "shape": "cross", "angle": 45, "filled": True, "size": 110, "opacity": 1},
        "lost-line": {"color": vermillion, "strokeWidth": 1.5, "strokeDash": [2, 2]},
        "reference": {"color": ink["quiet"], "strokeDash": [5, 4], "strokeWidth": 1.5},
        "published": {"color": ink["quiet"], "strokeDash": [1, 3], "strokeWidth": 2, "strokeCap": "round"},
        "published-error": {"color": ink["quiet"], "opacity": 0.12},
        "published-point": {"filled": False, "color": ink["quiet"], "size": 90, "shape": "diamond", "strokeWidth": 2},
        "published-spread": {"color": ink["quiet"], "strokeWidth": 1.5},
        "reference-label": {"color": ink["quiet"], "fontSize": 12},
        "cost": {"color": ink["cost"]},
        "value": {"color": ink["text"], "fontSize": 11},
        "on-light": {"color": "#000000", "fontSize": 12, "fontWeight": 600},
        "on-dark": {"color": "#ffffff", "fontSize": 12, "fontWeight": 600},
        "noise-limit": {"color": vermillion, "strokeDash": [6, 4], "strokeWidth": 1.5},
        "power-limit": {"color": ink["quiet"], "strokeDash": [2, 3], "strokeWidth": 1.5},
        "no-figure": {"filled": False, "color": vermillion, "strokeDash": [3, 3], "strokeWidth": 1},
        "frontier": {"color": vermillion, "strokeWidth": 2, "interpolate": "step-after"},
        "frontier-point": {"filled": True, "color": vermillion, "size": 90, "opacity": 1, "shape": "diamond"},
        "frontier-spread": {"color": vermillion, "strokeWidth": 1.5, "opacity": 0.9},
        "frontier-label": {"color": ink["text"], "fontSize": 12, "fontWeight": 600},
        "picked": {
            "filled": False,
            "color": ink["text"],
            "size": 320,
            "strokeWidth": 2.5,
            "opacity": 1,
            "shape": "circle",
        },
        "behind": {"filled": True, "color": ink["quiet"], "size": 55, "opacity": 0.8, "shape": "circle"},
        "behind-spread": {"color": ink["quiet"], "strokeWidth": 1, "opacity": 0.5},
        "behind-label": {"color": ink["quiet"], "fontSize": 11},
    }
