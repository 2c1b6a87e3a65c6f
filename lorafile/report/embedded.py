"""What the page carries besides its text, once each: charts, the figures behind every table, every run's details."""

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from lorafile.analysis.common.base import Analysis, Table, plain
from lorafile.analysis.training.curves import thinned
from lorafile.report.figures_json import Spec, as_json, column_records, records
from lorafile.report.theme import config
from lorafile.results.results import Results, RunKey, rows_of

TOLD = 200  # runs whose settings and sample predictions are on the page; state has those of all
LETTERS = 600  # of one text of a sample
_FRAMES = ("configurations", "runs", "profiles")
Packed = dict[str, Any]
BRUSH, PICKED = "brush", "picked"


@dataclass(frozen=True)
class PageRun:
    """One run as the page lists it: `at` is its row in the table of every run."""

    at: int
    seed: int | None
    outcome: str
    key: str


def embedded(
    results: Results,
    analyses: list[Analysis],
    specs: dict[str, Spec],
    tables: dict[str, Table],
    drawn: Sequence[Analysis] = (),
) -> dict[str, Any]:
    """Return everything that the page's scripts read.

    :param specs: name of a chart -> its specification
    :param tables: name -> every table of the page, in the order of their numbers
    :param drawn: what is drawn on the page and is no analysis of the study
    """
    every = [*analyses, *drawn]
    return {
        "charts": {name: _on_page(specs[name], analysis.kind) for analysis in every for name in analysis.charts},
        "light": config("light"),
        "dark": config("dark"),
        "names": results.names,
        "tables": [
            {"name": name, "title": table.title, "shown": column_records(table), **packed(records(table.frame))}
            for name, table in tables.items()
        ],
        "figures": _figures(results, analyses, specs, list(tables.values())),
        **_stories(results),
    }


def _on_page(spec: Spec, kind: str) -> Spec:
    """Return a chart for the page, which has the title as a heading, and needs no address of a schema.

    Its data are packed, but for a data set whose rows have different keys.
    """
    bare = {key: item for key, item in spec.items() if key not in ("$schema", "title", "config")}
    chart = with_brush(bare) if kind == "pareto" else bare
    datasets = {
        name: packed(rows) if len({tuple(row) for row in rows}) == 1 else rows
        for name, rows in chart.get("datasets", {}).items()
    }
    return chart | ({"datasets": datasets} if datasets else {})


def runs_by_configuration(results: Results) -> dict[str, list[PageRun]]:
    """Return configuration -> its runs, in the order of the table of every run."""
    rows = rows_of(results.runs, "configuration", "seed", "outcome", "key")
    runs: dict[str, list[PageRun]] = {name: [] for name in results.names}
    for at, (name, seed, outcome, key) in enumerate(rows):
        run = PageRun(at, None if seed is None else int(seed), str(outcome or "missing"), str(key or ""))
        runs.setdefault(str(name), []).append(run)
    return runs


def _figures(results: Results, analyses: list[Analysis], specs: dict[str, Spec], tables: list[Table]) -> dict[str, Any]:
    """Return the report's JSON without what the page holds already: rows of tables, data of charts."""
    numbers = {id(table): at for at, table in enumerate(tables)}
    figures = as_json(results, analyses, specs)
    for written, analysis in zip(figures["analyses"], analyses, strict=True):
        written["tables"] = [numbers[id(table)] for table in analysis.tables]
        for chart in written["charts"].values():
            del chart["data"], chart["description"]
    return figures | {name: packed(figures[name]) for name in _FRAMES}


def _stories(results: Results) -> dict[str, Any]:
    """Return of each run its keys and curve and, of the first ones, settings and a sample of predictions."""
    curves = _curves(results)
    settings: dict[str, int] = {}
    steps: dict[tuple[float, ...], int] = {}
    runs = []
    for at, (name, seed) in enumerate(rows_of(results.runs, "configuration", "seed")):
        run: RunKey = (str(name), None if seed is None else int(seed))
        story: dict[str, Any] = {}
        if run in curves:
            story["curve"] = [steps.setdefault(tuple(curves[run][0]), len(steps)), curves[run][1]]
        if detail := results.details.get(run):
            story["keys"] = detail.keys
            if at < TOLD:
                # Most runs share most of their sections: each stands on the page once.
                texts = {part: json.dumps(plain(section), sort_keys=True) for part, section in detail.settings.items()}
                story["settings"] = {part: settings.setdefault(text, len(settings)) for part, text in texts.items()}
        if at < TOLD and (sample := results.samples.get(run)):
            story |= {"split": sample.split, "samples": [_cut(row) for row in sample.rows]}
        runs.append(story)
    sections = [json.loads(section) for section in settings]
    about = {"private": bool(results.data.get("private")), "told": TOLD}
    return {"runs": runs, "settings": sections, "steps": list(steps), **about}


def _cut(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value[:LETTERS]}…" if isinstance(value, str) and len(value) > LETTERS else plain(value)
        for name, value in sample.items()
    }


def _curves(results: Results) -> dict[RunKey, list[list[float]]]:
    """Return run -> [steps, losses], thinned: enough for a line of a finger's width."""
    curves: dict[RunKey, list[list[float]]] = {}
    for name, seed, step, loss in rows_of(thinned(results), "configuration", "seed", "step", "loss"):
        steps, losses = curves.setdefault((str(name), None if seed is None else int(seed)), [[], []])
        steps.append(round(float(step)))
        losses.append(float(f"{loss:.4g}"))
    return curves


def packed(rows: list[dict[str, Any]]) -> Packed:
    """Return rows that have the same keys as `{keys, columns}`.

    A column is a list, or `{of, at}`: its different texts, and for each row which one.
    """
    keys = list(rows[0]) if rows else []
    return {"keys": keys, "columns": [_packed_column([row[key] for row in rows]) for key in keys]}


def _packed_column(values: list[Any]) -> list[Any] | dict[str, Any]:
    if not all(isinstance(value, str) for value in values):
        return values
    places = {value: at for at, value in enumerate(dict.fromkeys(values))}
    if 2 * len(places) > len(values):
        return values
    return {"of": list(places), "at": [places[value] for value in values]}


def with_brush(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a chart whose points can be brushed, and one of them ringed by the signal `picked`.

    The chart may declare an interval of its own called `brush`. Without points that name their configuration it stays
    what it is.
    """
    spec = deepcopy(spec)
    views = list(_views(spec))
    layered = [view["layer"] for view in views if "layer" in view]
    places = [(layers, at) for layers in layered for at, unit in enumerate(layers) if _is_point(unit)]
    if not places:
        return spec
    if not any(param.get("name") == BRUSH for view in views for param in view.get("params", [])):
        layers, at = places[0]
        brush = {"name": BRUSH, "select": {"type": "interval", "encodings": ["x", "y"]}}
        layers[at]["params"] = [*layers[at].get("params", []), brush]
    for layers, at in places:
        layers.append(_ring(layers[at]))
    spec["params"] = [*spec.get("params", []), {"name": PICKED, "value": ""}]
    spec["usermeta"] = {**spec.get("usermeta", {}), "brush": True}
    return spec


def _views(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a chart and every view inside it."""
    yield spec
    for key in ("layer", "concat", "hconcat", "vconcat"):
        for inner in spec.get(key, []):
            yield from _views(inner)


def _is_point(unit: dict[str, Any]) -> bool:
    mark = unit.get("mark")
    kind = mark.get("type") if isinstance(mark, dict) else mark
    encoding = unit.get("encoding", {})
    return kind in ("point", "circle") and all("field" in encoding.get(channel, {}) for channel in ("x", "y"))


def _ring(unit: dict[str, Any]) -> dict[str, Any]:
    """Return the same points as rings, of which only the picked one is drawn."""
    encoding = {channel: unit["encoding"][channel] for channel in ("x", "y")}
    ring: dict[str, Any] = {"mark": {"type": "point", "style": "picked"}, "encoding": encoding}
    ring["transform"] = [*unit.get("transform", []), {"filter": f"datum.configuration === {PICKED}"}]
    return ring | ({"data": unit["data"]} if "data" in unit else {})
