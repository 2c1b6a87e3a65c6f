"""What extra evaluations found: the loss on a reference text, answers to prompts, and the tasks of a harness."""

from math import isnan, nan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import kind_of, metric_name, number, on, without_figure
from lorafile.analysis.common.scores import Score, references, scores, split_of
from lorafile.results.results import Results, grouped, rows_of
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import plural

UNIT = "nats per token"
HEIGHT = 320
CAPTION = (
    "Each diamond is the mean of one configuration over seeds; bars: ± sample standard deviation over seeds. Dashed "
    "line: no forgetting. Hover over a mark for its name and values."
)
_PREFIX = "lm_eval."


def forgetting(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return the change of the reference text's loss next to each configuration's quality; nothing without a text."""
    if "reference.change" not in results.runs.columns:
        return []
    metric = table.metric or results.primary
    trained = results.setting("trained")
    every = {name: change for name, change in scores(results, "reference.change").items() if trained[name]}
    changes = {name: change for name, change in every.items() if change.known}
    if not changes:
        return []
    before = {name: figure.mean for name, figure in scores(results, "reference.before").items()}
    lines = _forgetting_sentences(changes, before)
    lines.append(f"The reference text is {results.reference}. The loss before is that of the untuned base.")
    if lost := without_figure(every):
        lines.append(f"No result on the reference text: {', '.join(lost)}.")
    name = "forgetting" if metric == results.primary else f"forgetting-{metric.replace('_', '-')}"
    question = "How did training change the loss on the reference text?"
    tables = (_forgetting_table(results, metric, changes, before),)
    analysis = Analysis("forgetting", name, "Forgetting", question, lines, tables)
    return [analysis.with_chart(_chart(results, metric, changes), CAPTION)]


def _forgetting_sentences(changes: dict[str, Score], before: dict[str, float]) -> list[str]:
    worst = max(changes, key=lambda name: changes[name].mean)
    least = min(changes, key=lambda name: changes[name].mean)
    text = _moved(worst, changes[worst], before[worst])
    several = len(changes) > 1
    if changes[worst].mean <= 0:
        rest = ", the smallest decrease" if several else ""
        return [f"No configuration raised the loss on the reference text: {text}{rest}."]
    lines = [f"{text}{', the largest change' if several else ''}."]
    return (
        [*lines, f"{_moved(least, changes[least], before[least])}, the smallest change."] if worst != least else lines
    )


def _moved(name: str, change: Score, before: float) -> str:
    verb = "raised" if change.mean > 0 else "lowered" if change.mean < 0 else "did not move"
    by = f" by {number(abs(change.mean))} {UNIT}" if change.mean else ""
    spread = "" if isnan(change.spread) else f" ± {number(change.spread, 2)} over {plural(change.n, 'seed')}"
    return f"{name} {verb} the loss on the reference text{by}{spread}, from {number(before)}"


def _forgetting_table(results: Results, metric: str, changes: dict[str, Score], before: dict[str, float]) -> Table:
    split = split_of(results, metric)
    quality = scores(results, f"{split}.{metric}")
    untuned = [quality[name].mean for name, role in references(results).items() if role == "untuned"]
    base = untuned[0] if len(untuned) == 1 else nan
    rows: list[dict[str, Any]] = []
    for name, change in changes.items():
        row = {"configuration": name, "before": before[name], "after": before[name] + change.mean}
        row |= {"change": change.mean, "spread": change.spread, "quality": quality[name].mean}
        rows.append(row | {"gain": quality[name].mean - base})
    columns = [
        Column("configuration", "configuration"),
        Column("before", "loss before", "number"),
        Column("after", "loss after", "number"),
        Column("change", "change (lower is better)", "number", "spread"),
        Column("quality", on(metric, split), kind_of(metric)),
    ]
    if any(not isnan(row["gain"]) for row in rows):
        columns.append(Column("gain", f"{metric_name(metric)} above untuned", kind_of(metric)))
    return Table(f"Loss on the reference text, {UNIT}", pd.DataFrame(rows), tuple(columns))


def _chart(results: Results, metric: str, changes: dict[str, Score]) -> Any:
    """Return the change of the reference loss (up: forgotten) against the metric."""
    import altair as alt

    from lorafile.analysis.common.chart_parts import WIDTH, domain_of, finish, mean_rows, padded, quality, tooltip
    from lorafile.analysis.common.label_layout import Axes, place_labels, texts

    shown = quality(results, metric)
    rows = mean_rows(shown, {name: name for name in changes if shown.scores[name].known})
    figures = [changes[name] for name in rows["configuration"]]
    rows["change"] = [change.mean for change in figures]
    spread = [change.spread if change.n > 1 else 0.0 for change in figures]
    rows["least"], rows["most"] = rows["change"] - spread, rows["change"] + spread
    rows["changed"] = [number(value) for value in rows["change"]]
    x_domain = domain_of(shown.metric, *shown.span(list(rows["configuration"])))
    x = alt.X("mean:Q", title=shown.title, scale=shown.scale(x_domain)).axis(format=shown.format, tickCount=6)
    title = "change of the reference loss, nats per token"
    y_domain = padded(min(0.0, float(rows["least"].min())), max(0.0, float(rows["most"].max())))
    y = alt.Y("change:Q", title=title, scale=alt.Scale(domain=y_domain, nice=False))
    tips = tooltip(("configuration:N", "configuration"), ("shown:N", shown.metric), ("changed:N", "change"))
    base = alt.Chart(rows)
    layers = [
        alt.Chart().mark_rule(style="reference").encode(y=alt.datum(0)),
        base.mark_rule(style="spread").encode(x=alt.X("low:Q").title(shown.title), x2="high:Q", y=y),
        base.mark_rule(style="spread").encode(x=x, y=alt.Y("least:Q").title(title), y2="most:Q"),
        base.mark_point(style="mean").encode(x=x, y=y, tooltip=tips),
    ]
    ends = {"x": "mean", "x_low": "low", "x_high": "high", "y": "change", "y_low": "least", "y_high": "most"}
    places = rows.assign(front=False, order=0, **{name: rows[column] for name, column in ends.items()})
    labels = place_labels(places, Axes(x_domain, y_domain, (False, False), (WIDTH, HEIGHT)), line=False)
    layers += texts(labels, alt.X("x:Q"), alt.Y("y:Q"))  # the axes are the points'
    whole = alt.layer(*layers, data=rows).properties(width=WIDTH, height=HEIGHT)
    text = "; ".join(f"{row['configuration']}: {row['changed']}" for row in rows.to_dict("records"))
    return finish(whole, "Forgetting", f"{title} against {shown.title}. {text}", margin=90)


def prompts(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return one table for each prompt, a row for each answer; nothing where nothing was asked."""
    if results.answers.empty and not results.answers_private:
        return []
    lines = ["Prompts and answers are private: they are kept in the state and never shown in a report."]
    tables: list[Table] = []
    if not results.answers.empty:
        tables = [_answers_to(int(str(number)), group) for number, group in results.answers.groupby("number")]
        asked = plural(len(tables), "prompt")
        lines = [
            f"{asked}, answered by the untuned base and by the first seed of each configuration.",
            "These are examples to read, not a measurement. The results above are measurements.",
        ]
    return [Analysis("prompts", "prompts", "Answers", "What do the models say?", lines, tuple(tables))]


def _answers_to(number: int, group: pd.DataFrame) -> Table:
    """Return the answers to one prompt; bases that differ have untuned answers of their own."""
    answers = list(rows_of(group, "configuration", "untuned", "tuned"))
    untuned = grouped((str(answer), str(name)) for name, answer, _ in answers if answer is not None)
    rows = [
        ("untuned" if len(untuned) == 1 else f"untuned base of {', '.join(names)}", answer)
        for answer, names in untuned.items()
    ]
    rows += [(name, str(answer)) for name, _, answer in answers if answer is not None]
    frame = pd.DataFrame({"who": who, "answer": answer.strip() or "(nothing)"} for who, answer in rows)
    columns = (Column("who", "model"), Column("answer", "answer"))
    return Table(f"Prompt {number}: {group['prompt'].iloc[0]}", frame, columns)


def lm_eval(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return one table for each task, with every figure that the harness gave; nothing where no task has run."""
    columns = [str(name) for name in results.runs.columns if str(name).startswith(_PREFIX)]
    tasks = grouped((name.removeprefix(_PREFIX).rpartition(".")[0], name) for name in columns)
    if not tasks:
        return []
    lines = [
        f"{plural(len(tasks), 'task')} from lm-evaluation-harness, with its own prompts and metrics. The values are "
        "those it reports: means over seeds ± sample standard deviation. Its standard errors cover examples only."
    ]
    tables = tuple(_task_table(results, task, names) for task, names in tasks.items())
    return [
        Analysis(
            "lm_eval",
            "lm-eval",
            "Harness tasks",
            "How do the configurations score on the harness's tasks?",
            lines,
            tables,
        )
    ]


def _task_table(results: Results, task: str, columns: list[str]) -> Table:
    rows: dict[str, dict[str, Any]] = {name: {"configuration": name} for name in results.names}
    shown = [Column("configuration", "configuration")]
    for column in columns:
        metric = column.rpartition(".")[2]
        for name, figure in scores(results, column).items():
            rows[name] |= {column: figure.mean, f"{column}.spread": figure.spread}
        shown.append(Column(column, metric, "count" if metric == "examples" else "number", f"{column}.spread"))
    return Table(task, pd.DataFrame(rows.values()), tuple(shown))
