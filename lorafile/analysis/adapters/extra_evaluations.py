"""What extra evaluations found: the loss on a reference text, answers to prompts, and the tasks of a harness."""

from math import isnan
from typing import Any

import pandas as pd

from lorafile.analysis.common.base import Analysis, Column, Table
from lorafile.analysis.common.format import kind_of, metric_name, number, on, without_figure
from lorafile.analysis.common.scores import Score, references, scores, split_of
from lorafile.results.results import Results, missing
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.units import plural

UNIT = "nats per token"
HEIGHT = 320
CAPTION = (
    "Each diamond is a configuration, the mean over seeds; bars: ± sample standard deviation over seeds. Dashed line: "
    "nothing forgotten. Point at a mark for its name and figures."
)
_PREFIX = "lm_eval."


def forgetting(results: Results, table: AnalysisTable) -> list[Analysis]:
    """Return the change of the reference text's loss beside each configuration's quality; nothing without a text."""
    if "reference.change" not in results.runs.columns:
        return []
    metric = table.metric or results.primary
    trained = dict(zip(results.configurations["configuration"], results.configurations["trained"], strict=True))
    changes = {name: one for name, one in scores(results, "reference.change").items() if trained[name]}
    known = {name: one for name, one in changes.items() if one.known}
    if not known:
        return []
    name = "forgetting" if metric == results.primary else f"forgetting-{metric.replace('_', '-')}"
    question, lines = "What did training cost on the reference text?", _forgetting_sentences(results, changes, known)
    made = Analysis("forgetting", name, "Forgetting", question, lines, (_forgetting_table(results, metric, known),))
    return [made.with_chart(_chart(results, metric, known), CAPTION)]


def _forgetting_sentences(results: Results, changes: dict[str, Score], known: dict[str, Score]) -> list[str]:
    before = scores(results, "reference.before")
    worst = max(known, key=lambda name: known[name].mean)
    least = min(known, key=lambda name: known[name].mean)
    told = _moved(worst, known[worst], before[worst])
    if known[worst].mean <= 0:
        rest = ", the least of all" if len(known) > 1 else ""
        lines = [f"No configuration raised the loss on the reference text: {told}{rest}."]
    else:
        lines = [f"{told}{', the most' if len(known) > 1 else ''}."]
    if worst != least and known[worst].mean > 0:
        lines.append(f"{_moved(least, known[least], before[least])}, the least.")
    lines.append(f"The reference text is {results.reference}; the same base, untuned, is what stands before.")
    lost = without_figure(changes)
    return [*lines, *([f"No figure on the reference text: {', '.join(lost)}."] if lost else [])]


def _moved(name: str, one: Score, before: Score) -> str:
    verb = "raised" if one.mean > 0 else "lowered" if one.mean < 0 else "did not move"
    by = f" by {number(abs(one.mean))} {UNIT}" if one.mean else ""
    spread = "" if isnan(one.spread) else f" ± {number(one.spread, 2)} over {plural(one.n, 'seed')}"
    return f"{name} {verb} the loss on the reference text{by}{spread}, from {number(before.mean)}"


def _forgetting_table(results: Results, metric: str, known: dict[str, Score]) -> Table:
    split = split_of(results, metric)
    quality, before = scores(results, f"{split}.{metric}"), scores(results, "reference.before")
    untuned = [quality[name].mean for name, role in references(results).items() if role == "untuned"]
    rows: list[dict[str, Any]] = []
    for name, one in known.items():
        row = {"configuration": name, "before": before[name].mean, "after": before[name].mean + one.mean}
        row |= {"change": one.mean, "spread": one.spread, "quality": quality[name].mean}
        row["gain"] = quality[name].mean - untuned[0] if len(untuned) == 1 else float("nan")
        rows.append(row)
    frame = pd.DataFrame(rows)
    columns = [
        Column("configuration", "configuration"),
        Column("before", "loss before", "number"),
        Column("after", "loss after", "number"),
        Column("change", "change (lower is better)", "number", "spread"),
        Column("quality", on(metric, split), kind_of(metric)),
    ]
    if not frame["gain"].isna().all():
        columns.append(Column("gain", f"{metric_name(metric)} above untuned", kind_of(metric)))
    return Table(f"Loss on the reference text, {UNIT}", frame, tuple(columns))


def _chart(results: Results, metric: str, known: dict[str, Score]) -> Any:
    """Return the change of the reference loss (up: forgotten) against the metric."""
    import altair as alt

    from lorafile.analysis.common.chart_parts import WIDTH, domain_of, finish, mean_rows, padded, quality, tooltip
    from lorafile.analysis.common.label_layout import Axes, place_labels, texts

    found = quality(results, metric)
    rows = mean_rows(found, {name: name for name in known if found.scores[name].known})
    rows["change"] = [known[name].mean for name in rows["configuration"]]
    spread = [known[name].spread if known[name].n > 1 else 0.0 for name in rows["configuration"]]
    rows["least"], rows["most"] = rows["change"] - spread, rows["change"] + spread
    rows["changed"] = [number(value) for value in rows["change"]]
    low, high = min(0.0, float(rows["least"].min())), max(0.0, float(rows["most"].max()))
    x_domain = domain_of(found.metric, *found.span(list(rows["configuration"])))
    x = alt.X("mean:Q", title=found.title, scale=found.scale(x_domain))
    x = x.axis(format=found.format, tickCount=6)
    title = "change of the reference loss, nats per token"
    y_domain = padded(low, high)
    y = alt.Y("change:Q", title=title, scale=alt.Scale(domain=y_domain, nice=False))
    tips = tooltip(("configuration:N", "configuration"), ("shown:N", found.metric), ("changed:N", "change"))
    base = alt.Chart(rows)
    layers = [
        alt.Chart().mark_rule(style="reference").encode(y=alt.datum(0)),
        base.mark_rule(style="spread").encode(x=alt.X("low:Q").title(found.title), x2="high:Q", y=y),
        base.mark_rule(style="spread").encode(x=x, y=alt.Y("least:Q").title(title), y2="most:Q"),
        base.mark_point(style="mean").encode(x=x, y=y, tooltip=tips),
    ]
    ends = {"x": "mean", "x_low": "low", "x_high": "high", "y": "change", "y_low": "least", "y_high": "most"}
    places = rows.assign(front=False, order=0, **{name: rows[column] for name, column in ends.items()})
    labels = place_labels(places, Axes(x_domain, y_domain, (False, False), (WIDTH, HEIGHT)), line=False)
    layers += texts(labels, alt.X("x:Q"), alt.Y("y:Q"))  # the axes are the points'
    whole = alt.layer(*layers, data=rows).properties(width=WIDTH, height=HEIGHT)
    text = "; ".join(f"{row['configuration']}: {row['changed']}" for row in rows.to_dict("records"))
    return finish(whole, "Forgetting", f"{title} against {found.title}. {text}", margin=90)


def prompts(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return one table for each prompt, a row for each answer; nothing where nothing was asked."""
    if results.answers.empty:
        return [_hidden()] if results.answers_private else []
    answers = results.answers
    tables = [
        _answers_to(str(group["prompt"].iloc[0]), int(str(number)), group)
        for number, group in answers.groupby("number")
    ]
    count = len(tables)
    asked = f"{plural(count, 'prompt')}, answered by the untuned base and by the first seed of each configuration."
    told = [asked, "These are examples to read, not a measurement; the figures above are one."]
    return [Analysis("prompts", "prompts", "Answers", "What do the models say?", told, tuple(tables))]


def _hidden() -> Analysis:
    told = "Prompts and answers are private: they are in the state, and in no report."
    return Analysis("prompts", "prompts", "Answers", "What do the models say?", [told])


def _answers_to(prompt: str, number: int, group: pd.DataFrame) -> Table:
    """Return who answered what; bases that differ have untuned answers of their own."""
    untuned: dict[str, list[str]] = {}
    rows = []
    for row in group.to_dict("records"):
        if not missing(row["untuned"]):
            untuned.setdefault(str(row["untuned"]), []).append(str(row["configuration"]))
        if not missing(row["tuned"]):
            rows.append({"who": row["configuration"], "answer": _shown_answer(str(row["tuned"]))})
    before = [
        {
            "who": "untuned" if len(untuned) == 1 else f"untuned base of {', '.join(whose)}",
            "answer": _shown_answer(text),
        }
        for text, whose in untuned.items()
    ]
    columns = (Column("who", "model"), Column("answer", "answer"))
    return Table(f"Prompt {number}: {prompt}", pd.DataFrame([*before, *rows]), columns)


def _shown_answer(text: str) -> str:
    return text.strip() or "(nothing)"


def lm_eval(results: Results, _table: AnalysisTable) -> list[Analysis]:
    """Return one table for each task, with every figure that the harness gave; nothing where no task has run."""
    columns = [str(name) for name in results.runs.columns if str(name).startswith(_PREFIX)]
    tasks = list(dict.fromkeys(name.removeprefix(_PREFIX).rpartition(".")[0] for name in columns))
    if not tasks:
        return []
    told = [
        f"{plural(len(tasks), 'task')} of lm-evaluation-harness, with its own prompts and metrics. Shown is what it "
        "reports, means over seeds ± sample standard deviation. Its standard errors are of examples alone."
    ]
    tables = tuple(_task_table(results, task, columns) for task in tasks)
    return [Analysis("lm_eval", "lm-eval", "Harness tasks", "What do the harness's tasks say?", told, tables)]


def _task_table(results: Results, task: str, columns: list[str]) -> Table:
    mine = [name for name in columns if name.removeprefix(_PREFIX).rpartition(".")[0] == task]
    rows: dict[str, dict[str, Any]] = {name: {"configuration": name} for name in results.names}
    shown = [Column("configuration", "configuration")]
    for column in mine:
        metric = column.rpartition(".")[2]
        for name, one in scores(results, column).items():
            rows[name] |= {column: one.mean, f"{column}.spread": one.spread}
        shown.append(Column(column, metric, "count" if metric == "examples" else "number", f"{column}.spread"))
    return Table(task, pd.DataFrame(rows.values()), tuple(shown))
