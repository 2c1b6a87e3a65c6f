"""results.tex: the configurations as a table for a paper (booktabs), with bold only where verdicts carry it."""

import re
from typing import Any

from lorafile.analysis.common.format import direction, is_share, number, on, unit
from lorafile.analysis.common.scores import scores, split_of
from lorafile.analysis.compare.verdicts import family
from lorafile.analysis.overview.summary import configuration_rows
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, missing

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "[": "{[}",  # at the beginning of a row it would be an argument of the line break before it, as would a star
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": r"$-$",
    "–": "--",
    "—": "---",
    "\u2009": r"\,",
    "\u202f": r"\,",
    "\u00a0": "~",
}
# What turns the line around or is not to be seen is written by its code, as in RESULTS.md.
_HIDDEN = re.compile(r"[\x00-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
Row = dict[str, Any]


def escaped(text: object) -> str:
    """Return text that LaTeX sets as it is: no command, no mathematics, no comment, in one line."""
    shown = _HIDDEN.sub(lambda match: " " if match[0].isspace() else f"U+{ord(match[0]):04X}", str(text))
    return "".join(_SPECIAL.get(letter, letter) for letter in shown)


def table_of_results(results: Results) -> str:
    r"""Return one `table` environment, to be read with `\input`; a document needs `\usepackage{booktabs}`.

    Figures are mean ± sample standard deviation over seeds. A figure is bold only where the study's verdicts say that
    its configuration is better than every other trained one in the table.
    """
    rows = list(configuration_rows(results).values())
    columns = _columns(results, rows)
    winner = best_by_verdict(results)
    heads = [r"\textbf{" + head + "}" for head in ["Configuration", *(head for head, _ in columns)]]
    key = _key(results, results.primary)
    lines = []
    for row in rows:
        cells = [escaped(row["configuration"]), *(show(row) for _, show in columns)]
        if row["configuration"] == winner and not missing(row.get(f"{key}.mean")):
            cells[1] = r"\textbf{" + cells[1] + "}"
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}. Made by lora report; the papers are in references.bib.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_caption(results, winner)}}}",
            rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', str(results.study).lower()).strip('-') or 'results'}}}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def best_by_verdict(results: Results) -> str | None:
    """Return the trained configuration that verdicts call better than each other one with a figure; None if none is.

    A configuration that was not compared with it leaves it open.
    """
    judged = family(results)
    figures = scores(results, f"{judged.split}.{judged.metric}")
    trained = [name for name, method in results.methods.items() if method != "none" and figures[name].known]
    for name in trained:
        verdicts = [judged.of(name, rival) for rival in trained if rival != name]
        if verdicts and all(
            verdict and verdict.word == ("better" if verdict.pair.one == name else "worse") for verdict in verdicts
        ):
            return name
    return None


def _key(results: Results, metric: str) -> str:
    return f"{split_of(results, metric)}.{metric}"


def _columns(results: Results, rows: list[Row]) -> list[tuple[str, Any]]:
    """Return (heading, row -> cell) of each column, the primary metric first; what was not measured is left out."""
    metrics = sorted(results.metrics, key=lambda metric: metric != results.primary)
    columns = [_metric_column(results, metric) for metric in metrics]
    if any(" of " in row.get("runs", "") for row in rows):  # what is in no mean stands next to it
        columns.append(("Runs", lambda row: escaped(row.get("runs", "--"))))
    for title, key, kind in (
        ("Trainable parameters", "trainable_parameters", "count"),
        ("Peak training memory", "train_allocated_bytes", "bytes"),
    ):
        if measured := [row[key] for row in rows if not missing(row.get(key))]:
            columns.append(_cost_column(title, key, kind, max(measured)))
    return columns


def _metric_column(results: Results, metric: str) -> tuple[str, Any]:
    key, share = _key(results, metric), is_share(metric)
    arrow = r"$\uparrow$" if more_is_better(metric) else r"$\downarrow$"
    heading = f"{escaped(on(metric, key.partition('.')[0]))}{', ' + escaped('%') if share else ''} {arrow}"
    scale = 100 if share else 1

    def show(row: Row) -> str:
        mean, spread = row.get(f"{key}.mean"), row.get(f"{key}.spread")
        if mean is None or missing(mean):
            return "--"
        shown = f"{scale * mean:.1f}" if share else number(mean)
        if spread is None or missing(spread):
            return escaped(shown)
        places = len(shown.partition(".")[2])
        return rf"{escaped(shown)} $\pm$ {scale * spread:.{places}f}"

    return heading, show


def _cost_column(title: str, key: str, kind: str, largest: float) -> tuple[str, Any]:
    """Return a column of cost in one unit, so that its cells can be compared; counts are whole numbers."""
    size, name = unit(kind, largest) if kind == "bytes" else (1.0, "")

    def show(row: Row) -> str:
        value = row.get(key)
        if value is None or missing(value):
            return "--"
        return escaped(f"{round(value):,}".replace(",", "\u2009") if kind == "count" else number(value / size))

    return title + (f", {name}" if name else ""), show


def _caption(results: Results, winner: str | None) -> str:
    counts = sorted({score.n for score in scores(results, _key(results, results.primary)).values() if score.n > 1})
    seeds = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds" if counts else ""
    figures = f"Mean ± sample standard deviation over {seeds}; " if counts else ""
    directions = [f"{on(metric, split_of(results, metric))}: {direction(metric)}" for metric in results.metrics]
    bold = "Nothing is bold: no verdict puts one configuration above all others."
    if winner:
        bold = "Bold: better than every other trained configuration (family-wise verdicts)."
    return escaped(f"{results.title or results.study}. {figures}{', '.join(directions)}. {bold}")
