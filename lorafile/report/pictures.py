"""Charts as PNG files, for documents that run no scripts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lorafile.report.numbers import specification
from lorafile.report.theme import config

if TYPE_CHECKING:
    from lorafile.analysis.base import Analysis

SCALE = 2  # pixels for each pixel of the chart: sharp on dense screens and on paper


def write_pictures(analyses: "list[Analysis]", directory: Path) -> list[Path]:
    """Write each chart as `<name>.png`, in the light theme, and return the paths."""
    charts = {name: chart for analysis in analyses for name, chart in analysis.charts.items()}
    if not charts:
        return []
    import vl_convert

    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, chart in charts.items():
        text = json.dumps(specification(chart) | {"config": config("light")}, allow_nan=False)
        # An empty list of allowed addresses: a picture is made from its own data alone.
        picture = vl_convert.vegalite_to_png(text, scale=SCALE, allowed_base_urls=[])
        path = directory / f"{name}.png"
        path.write_bytes(picture)
        written.append(path)
    return written
