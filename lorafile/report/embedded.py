"""What the page carries beside its text, once each: charts, the figures behind every table, and every run's story."""

import json
from dataclasses import dataclass
from typing import Any

from lorafile.analysis.common.base import Analysis, Table
from lorafile.analysis.common.format import missing
from lorafile.analysis.common.scores import cells, names
from lorafile.analysis.training.curves import thinned
from lorafile.report.brush import with_brush
from lorafile.report.columnar import packed, packed_chart
from lorafile.report.figures_json import Spec, as_json, plain, records
from lorafile.report.theme import config
from lorafile.results.results import Results, RunKey

TOLD = 200  # runs whose settings and sample predictions are on the page; state has those of all
LETTERS = 600  # of one text of a sample
_FRAMES = ("configurations", "runs", "profiles")


@dataclass(frozen=True)
class Run:
    """One run as the page lists it: `at` is its row in the table of every run."""

    at: int
    seed: int | None
    outcome: str
    key: str


def embedded(
    results: Results, analyses: list[Analysis], specs: dict[str, Spec], tables: dict[str, Table]
) -> dict[str, Any]:
    """Return everything that the page's scripts read.

    :param specs: name of a chart -> its specification
    :param tables: name -> every table of the page, in the order of their numbers
    """
    return {
        "charts": {name: _on_page(specs[name], analysis.kind) for analysis in analyses for name in analysis.charts},
        "light": config("light"),
        "dark": config("dark"),
        "names": names(results),
        "tables": [{"name": name} | _table(table) for name, table in tables.items()],
        "figures": _figures(results, analyses, specs, list(tables.values())),
        **_stories(results),
    }


def _on_page(spec: Spec, kind: str) -> Spec:
    """Return a chart for the page, which has the title as a heading, and needs no address of a schema."""
    bare = {key: item for key, item in spec.items() if key not in ("$schema", "title", "config")}
    return packed_chart(with_brush(bare) if kind == "pareto" else bare)


def runs_by_configuration(results: Results) -> dict[str, list[Run]]:
    """Return configuration -> its runs, in the order of the table of every run."""
    columns = (cells(results.runs, key) for key in ("configuration", "seed", "outcome", "key"))
    found: dict[str, list[Run]] = {name: [] for name in names(results)}
    for at, (name, seed, outcome, key) in enumerate(zip(*columns, strict=True)):
        run = Run(at, None if seed is None else int(seed), str(outcome or "missing"), str(key or ""))
        found.setdefault(str(name), []).append(run)
    return found


def _table(table: Table) -> dict[str, Any]:
    columns = [
        {"key": one.key, "title": one.title, "kind": one.kind, "spread": one.spread or None, "n": one.n or None}
        for one in table.columns
    ]
    return {"title": table.title, "shown": columns, **packed(records(table.frame))}


def _figures(results: Results, analyses: list[Analysis], specs: dict[str, Spec], tables: list[Table]) -> dict[str, Any]:
    """Return the report's JSON without what the page holds already: rows of tables, data of charts."""
    numbers = {id(table): at for at, table in enumerate(tables)}
    found = as_json(results, analyses, specs)
    for one, analysis in zip(found["analyses"], analyses, strict=True):
        one["tables"] = [numbers[id(table)] for table in analysis.tables]
        for chart in one["charts"].values():
            del chart["data"], chart["description"]
    return found | {name: packed(found[name]) for name in _FRAMES}


def _stories(results: Results) -> dict[str, Any]:
    """Return of each run its keys and curve and, of the first ones, settings and a sample of predictions."""
    curves = _curves(results)
    settings: dict[str, int] = {}
    steps: dict[tuple[float, ...], int] = {}
    runs = []
    for at, run in enumerate(_run_keys(results)):
        told: dict[str, Any] = {}
        if run in curves:
            told["curve"] = [steps.setdefault(tuple(curves[run][0]), len(steps)), curves[run][1]]
        if detail := results.details.get(run):
            told["keys"] = detail.keys
            if at < TOLD:
                told["settings"] = {part: _place(section, settings) for part, section in detail.settings.items()}
        if at < TOLD and (sample := results.samples.get(run)):
            told |= {"split": sample.split, "samples": [_cut(row) for row in sample.rows]}
        runs.append(told)
    sections = [json.loads(section) for section in settings]
    about = {"private": bool(results.data.get("private")), "told": TOLD}
    return {"runs": runs, "settings": sections, "steps": list(steps), **about}


def _run_keys(results: Results) -> list[RunKey]:
    rows = zip(cells(results.runs, "configuration"), cells(results.runs, "seed"), strict=True)
    return [(str(name), None if seed is None else int(seed)) for name, seed in rows]


def _place(section: Any, settings: dict[str, int]) -> int:
    """Return a section's place among the settings: most runs share most of them."""
    return settings.setdefault(json.dumps(plain(section), sort_keys=True), len(settings))


def _cut(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{value[:LETTERS]}…" if isinstance(value, str) and len(value) > LETTERS else plain(value)
        for name, value in sample.items()
    }


def _curves(results: Results) -> dict[RunKey, list[list[float]]]:
    """Return run -> [steps, losses], thinned: enough for a line of a finger's width."""
    found: dict[RunKey, list[list[float]]] = {}
    thin = thinned(results)
    columns = [cells(thin, key) for key in ("configuration", "seed", "step", "loss")]
    for name, seed, step, loss in zip(*columns, strict=True):
        steps, losses = found.setdefault((str(name), None if missing(seed) else int(seed)), [[], []])
        steps.append(round(float(step)))
        losses.append(float(f"{loss:.4g}"))
    return found
