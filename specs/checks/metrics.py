"""The checks of metrics against each other and against the data's format, as far as the spec alone tells."""

import re
from typing import get_args

from lorafile.specs.error_messages import Problems, show
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.evaluate import (
    OF_ANSWERS,
    OF_CLASSES,
    OF_HEADS,
    OF_PASSAGES,
    EvaluateTable,
    MetricName,
    is_file,
    label,
)
from lorafile.specs.tables.settings import SpecTables


def with_default_metrics(tables: SpecTables) -> SpecTables:
    """Return the tables with the metrics that a classification head can have, where the spec names none."""
    evaluate = tables.evaluate
    if tables.model.task_type != "SEQ_CLS" or "metrics" in evaluate.model_fields_set:
        return tables
    return tables.model_copy(update={"evaluate": evaluate.model_copy(update={"metrics": list(OF_HEADS)})})


def check_evaluate(evaluate: EvaluateTable, data: DataTable, problems: Problems) -> None:
    """Check names of metric files, metrics that the format cannot have, and settings that no metric reads."""
    _check_names(evaluate, problems)
    form = "template" if data.template and data.format == "auto" else data.format
    for number, metric in enumerate(evaluate.metrics):
        path = ("evaluate", "metrics", number)
        if metric in OF_CLASSES and form not in ("auto", "classification"):
            problems.add(path, f'{metric} needs data.format = "classification", not "{form}"')
        if metric in OF_PASSAGES and form not in ("auto", "squad"):
            problems.add(path, f'{metric} needs data.format = "squad", not "{form}"')
        if metric in OF_ANSWERS and form == "text":
            problems.add(path, f'{metric} needs answers, and data.format = "text" has none')
    for setting, reader in (("extract", "exact_match"), ("average", "f1"), ("pos_label", "f1")):
        if getattr(evaluate, setting) is not None and reader not in evaluate.metrics:
            problems.add(("evaluate", setting), f"is read by {reader}, which is not among evaluate.metrics")
    if evaluate.pos_label and evaluate.average not in (None, "binary"):
        problems.add(("evaluate", "pos_label"), f'has no meaning beside average = "{evaluate.average}"')
    _check_extract(evaluate.extract, problems)
    if evaluate.prompts is not None and not evaluate.prompts.texts and not evaluate.prompts.path:
        problems.add(("evaluate", "prompts"), 'asks nothing; write texts = ["…"] or path = "prompts.txt"')
    for setting in ("lm_eval_limit", "lm_eval_num_fewshot", "lm_eval_include_path"):
        if getattr(evaluate, setting) is not None and not evaluate.lm_eval_tasks:
            problems.add(("evaluate", setting), "is read by evaluate.lm_eval_tasks, which are not set")
    for setting in ("temperature", "top_p", "top_k"):
        if getattr(evaluate, setting) is not None and not evaluate.do_sample:
            problems.add(("evaluate", setting), "has no effect on the likeliest answer; set do_sample = true beside it")
    if evaluate.do_sample and evaluate.num_beams > 1:
        problems.add(
            ("evaluate", "num_beams"), "beams are searched, not drawn; set do_sample = false, or num_beams = 1"
        )


def _check_names(evaluate: EvaluateTable, problems: Problems) -> None:
    seen: dict[str, str] = {}
    for number, metric in enumerate(evaluate.metrics):
        name, path = label(metric), ("evaluate", "metrics", number)
        if is_file(metric) and not re.fullmatch(r"[\w-]+", name):
            problems.add(path, f'{show(name)} becomes the metric\'s name: use letters, digits, "_" and "-"')
        elif is_file(metric) and name in (*get_args(MetricName), "examples"):
            problems.add(path, f"{name} is the name of a figure that ships; call the file something else")
        elif seen.get(name, metric) != metric:
            problems.add(path, f"{show(seen[name])} would have the same name, {name}; call one of them something else")
        seen.setdefault(name, metric)


def _check_extract(extract: str | None, problems: Problems) -> None:
    if extract is None or extract == "last-number":
        return
    path = ("evaluate", "extract")
    try:
        groups = re.compile(extract).groups
    except (re.error, OverflowError, RecursionError) as error:
        problems.add(path, f'should be "last-number" or a valid regular expression ({error})')
        return
    if groups != 1:
        told = f"not {groups}; a bracket that only groups is written (?:…)" if groups else "not none: write (…)"
        problems.add(path, f'should be "last-number" or a regular expression with one group, {told}')
