"""Charts as files, for documents that run no scripts and for papers: PNG, SVG, and the Vega-Lite they are made from."""

import json
from pathlib import Path

from lorafile.files.atomic import explain_write_errors, replace_file
from lorafile.report.figures_json import Spec
from lorafile.report.theme import config

SCALE = 2  # pixels for each pixel of the chart: sharp on dense screens and on paper


def write_pictures(specs: dict[str, Spec], directory: Path) -> list[Path]:
    """Write each chart as `<name>.png`, `.svg` and `.vl.json`, in the light theme, and return the paths.

    :param specs: name of a chart -> its specification
    """
    if not specs:
        return []
    import vl_convert

    with explain_write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, spec in specs.items():
        text = json.dumps(spec | {"config": config("light")}, allow_nan=False, indent=1)
        # An empty list of allowed addresses: a picture is made from its own data alone.
        drawn = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
        files = {
            "png": vl_convert.svg_to_png(drawn, scale=SCALE),
            "svg": drawn.encode(),
            "vl.json": f"{text}\n".encode(),
        }
        for ending, content in files.items():
            written.append(directory / f"{name}.{ending}")
            with replace_file(written[-1]) as new:
                new.write_bytes(content)
    return written
