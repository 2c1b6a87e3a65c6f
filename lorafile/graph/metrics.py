"""What a study's metrics read, their options, and whether its data have what they read."""

from typing import Any

from lorafile.engine.metrics import extraction
from lorafile.engine.metrics.custom import CustomMetric, read_custom_metric
from lorafile.engine.metrics.registry import OF_HEADS, CustomMetricName, built_in
from lorafile.errors import NodeError
from lorafile.graph.builder import GraphBuilder
from lorafile.graph.graph import Graph
from lorafile.specs import Configuration, Spec
from lorafile.specs.checks.analysis import expected_deviations
from lorafile.specs.tables.evaluate import (
    NEEDS_NUMBERS,
    OF_ANSWERS,
    OF_CLASSES,
    OF_LIKELIHOODS,
    OF_PASSAGES,
    OF_REGRESSIONS,
    OF_WORDS,
    PREDICTS_NUMBERS,
    is_metric_file,
    metric_label,
)


def own_metrics(spec: Spec) -> dict[str, CustomMetric]:
    """Return name -> the metric file of that name.

    :raises SpecError: when a file is missing, or is no metric, or a margin is in points that it has not
    """
    metrics: dict[str, CustomMetric] = {}
    for number, metric in enumerate(spec.tables.evaluate.metrics):
        if is_metric_file(metric):
            try:
                metrics[metric_label(metric)] = read_custom_metric(metric, metric_label(metric), spec.file.parent)
            except NodeError as error:
                raise spec.error(("evaluate", "metrics", number), str(error)) from error
    _check_margins(spec, metrics)
    return metrics


def _check_margins(spec: Spec, own: dict[str, CustomMetric]) -> None:
    """Refuse a margin in percentage points of a metric file whose unit is no share: it would be no margin at all."""
    tables = spec.tables
    asked: list[tuple[tuple[str | int, ...], Any, Any]] = [(("verdict", "margin"), tables.verdict.margin, None)]
    asked += [(("analysis", at, "margin"), table.margin, table.metric) for at, table in enumerate(tables.analysis)]
    asked += [(place, deviation, None) for place, deviation in expected_deviations(tables.verdict)]
    for at, claim in enumerate(tables.claim):
        asked += [(("claim", at, name), getattr(claim, name), claim.metric) for name in ("margin", "at_most_below")]
    for place, margin, metric in asked:
        of = own.get(metric_label(metric) if metric else spec.primary)
        if of and isinstance(margin, str) and margin.endswith("pt") and not of.unit.startswith(("share", "points")):
            unit = f'"{of.unit}"' if of.unit else "none"
            remedy = f'write a number in that unit, or "1%"; if it is a share, set UNIT = "share" in {of.written}'
            raise spec.error(place, f"{margin} is in percentage points, and the unit of {of.label} is {unit}; {remedy}")


def built_in_metrics(spec: Spec) -> list[str]:
    """Return the metrics that ship, in the spec's order."""
    return [metric for metric in spec.tables.evaluate.metrics if not is_metric_file(metric)]


def is_head(configuration: Configuration) -> bool:
    """Return whether a configuration's model is a classification head."""
    return configuration.model.task_type == "SEQ_CLS"


def outputs(builder: GraphBuilder, configuration: Configuration) -> list[str]:
    """Return what has to be predicted for a configuration's metrics, each once."""
    head = is_head(configuration)

    def needs(metric: str) -> str:
        own = builder.graph.own.get(metric_label(metric)) if is_metric_file(metric) else None
        return own.needs if own else built_in(metric, head).needs

    return builder.once(
        ("outputs", head), lambda: list(dict.fromkeys(map(needs, builder.spec.tables.evaluate.metrics)))
    )


def built_in_outputs(builder: GraphBuilder, configuration: Configuration) -> set[str]:
    """Return which predictions the metrics that ship read."""
    head = is_head(configuration)
    return builder.once(
        ("shipped", head), lambda: {built_in(metric, head).needs for metric in built_in_metrics(builder.spec)}
    )


def score_section(builder: GraphBuilder, configuration: Configuration, split: str) -> dict[str, Any]:
    """Return what decides the figures of one split: each metric's version, and its options where it has any."""
    name = ("score", builder.graph.splits[configuration.name][split], is_head(configuration))
    return builder.share(name, builder.once(("of", *name), lambda: _score_section(builder, configuration, split)))


def _score_section(builder: GraphBuilder, configuration: Configuration, split: str) -> dict[str, Any]:
    evaluate = builder.spec.tables.evaluate
    names = sorted(built_in_metrics(builder.spec))
    head = is_head(configuration)
    section: dict[str, Any] = {"metrics": {name: built_in(name, head).version for name in names}}
    options: dict[str, dict[str, Any]] = {}
    if evaluate.extract:
        options["exact_match"] = {"extract": evaluate.extract}
        section["metrics"]["exact_match"] = extraction.VERSIONS.get(evaluate.extract, section["metrics"]["exact_match"])
    if evaluate.tokenize:
        options |= {name: {"tokenize": evaluate.tokenize} for name in names if name in OF_WORDS}
    if "f1" in names:
        options["f1"] = _f1(builder, configuration, split)
    section |= {} if evaluate.strip_reasoning else {"strip_reasoning": False}
    section |= reasoning_section(builder, configuration, split)
    return section | ({"options": options} if any(options.values()) else {})


def reasoning_section(builder: GraphBuilder, configuration: Configuration, split: str) -> dict[str, int]:
    """Return what says that answers are compared after their block of reasoning, which conversations alone have.

    2: the block is found in what is stored. Before, none was, and all of an answer was compared.
    """
    data = builder.graph.nodes[builder.graph.splits[configuration.name][split]].settings["data"]
    conversations = data["format"] == "chat" or data.get("chat_template")
    return {"reasoning": 2} if conversations and builder.spec.tables.evaluate.strip_reasoning else {}


def _f1(builder: GraphBuilder, configuration: Configuration, split: str) -> dict[str, str]:
    """Return how F1 averages, and of which class; of two, the last one is the positive, as 1 is of 0 and 1.

    :raises SpecError: when there is no such class, or one of many would have to be guessed
    """
    evaluate = builder.spec.tables.evaluate
    data = builder.graph.nodes[builder.graph.splits[configuration.name][split]].settings["data"]
    names = [name for _, name in data.get("labels", [])]
    if evaluate.pos_label and evaluate.pos_label not in names:
        raise builder.spec.error(
            ("evaluate", "pos_label"), f'"{evaluate.pos_label}" is not a class of the data: {", ".join(names)}'
        )
    if evaluate.average == "binary" and len(names) > 2 and not evaluate.pos_label:
        message = f"binary needs evaluate.pos_label if there are {len(names)} classes"
        raise builder.spec.error(("evaluate", "average"), message)
    binary = evaluate.average == "binary" or (evaluate.average is None and len(names) == 2)
    options = {"average": evaluate.average} if evaluate.average else {}
    return options | ({"pos_label": evaluate.pos_label or names[-1]} if binary else {})


def check_metrics(builder: GraphBuilder, configuration: Configuration, form: str) -> None:
    """Check that the data's format, and the model's task, have what the metrics read.

    :raises SpecError: at the metric that cannot be
    """
    head = is_head(configuration)
    for number, metric in enumerate(builder.spec.tables.evaluate.metrics):
        own = builder.graph.own.get(metric_label(metric)) if is_metric_file(metric) else None
        wrong = ""
        regression = configuration.model.is_regression
        if (metric in OF_REGRESSIONS or (own is not None and own.needs == "regression")) != regression:
            wrong = PREDICTS_NUMBERS if regression else NEEDS_NUMBERS
        elif (metric in OF_CLASSES or (own and own.needs == "choice")) and form != "classification":
            wrong = f'needs classes: data.format = "classification", not "{form}"'
        elif metric in OF_PASSAGES and form != "squad":
            wrong = f'needs passages with accepted answers: data.format = "squad", not "{form}"'
        elif (metric in OF_ANSWERS or (own and own.needs == "generation")) and (form == "text" or head):
            wrong = "needs answers, and plain text has none" if form == "text" else _OF_HEADS
        elif (metric in OF_LIKELIHOODS[1:] or (own and own.needs == "likelihood")) and head:
            wrong = _OF_HEADS
        if wrong:
            name = f"{metric_label(metric)} {wrong}"
            raise builder.spec.error(("evaluate", "metrics", number), name)
    others = builder.once(("heads",), lambda: {is_head(other) for other in builder.spec.configurations})
    if len(others) > 1 and "log_loss" in builder.spec.tables.evaluate.metrics:
        message = "log_loss is over tokens for a language model and over classes for a head; the two cannot be compared"
        raise builder.spec.error(("evaluate", "metrics"), message)


_OF_HEADS = 'needs a language model, but model.task_type = "SEQ_CLS" generates no text; use accuracy, f1 or log_loss'


def metric_names(graph: Graph) -> dict[str, str]:
    """Return every metric by name; that of a metric file, and of a head's loss, knows its own unit and direction."""
    names = {}
    heads = all(map(is_head, graph.spec.configurations))
    for name in map(metric_label, graph.spec.tables.evaluate.metrics):
        own = graph.own.get(name) or (OF_HEADS.get(name) if heads else None)
        names[name] = CustomMetricName(name, own.unit, own.more_is_better) if own else name
    return names
