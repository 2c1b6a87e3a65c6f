"""The checks of settings against each other: contradictions, and names that point at nothing."""

import re
from string import Formatter
from typing import Any, get_args
from urllib.parse import urlsplit

from lorafile.specs.catalogue import evaluation
from lorafile.specs.checks.analysis import check_analyses, varied_settings
from lorafile.specs.checks.sweeps import check_bits
from lorafile.specs.checks.trainers import check_trainers
from lorafile.specs.error_messages import Problems, show, suggestion
from lorafile.specs.positions import Path
from lorafile.specs.tables.data import DataTable, TemplateTable
from lorafile.specs.tables.evaluate import (
    EXTRACTIONS,
    NEEDS_NUMBERS,
    OF_ANSWERS,
    OF_CLASSES,
    OF_HEADS,
    OF_NUMBERS,
    OF_PASSAGES,
    OF_REGRESSIONS,
    OF_WORDS,
    PREDICTS_NUMBERS,
    EvaluateTable,
    MetricName,
    is_metric_file,
    metric_label,
)
from lorafile.specs.tables.settings import SpecTables
from lorafile.specs.tables.tracking import TrackingTable
from lorafile.specs.tables.train import VALIDATION

# What each format reads; `data.columns` says which column of the data holds it.
FIELDS: dict[str, tuple[str, ...]] = {
    "alpaca": ("instruction", "input", "output"),
    "chat": ("messages",),
    "classification": ("text", "sentence1", "sentence2", "label"),
    "completion": ("prompt", "completion"),
    "guanaco": ("text",),
    "question": ("question", "answer"),
    "squad": ("context", "question", "answers"),
    "text": ("text",),
}
FIELDS["auto"] = tuple(dict.fromkeys(field for fields in FIELDS.values() for field in fields))
_TEMPLATED = ("auto", "classification", "squad")  # formats whose words a template may replace


def check_tables(tables: SpecTables, raw: dict[str, Any], problems: Problems) -> None:
    """Check what types cannot say.

    :param tables: the spec without what its types refuse, so that one mistake does not hide another
    """
    _check_lists(tables, problems)
    _check_training(tables, problems)
    _check_data(tables.data, problems)
    _check_evaluate(tables.evaluate, tables.data, problems)
    varied = varied_settings(raw)
    _check_validation(tables, varied, problems)
    if not {"model.task_type", "model.num_labels"} & {*varied}:
        _check_regression(tables, problems)
    check_bits(raw.get("quantization"), ("quantization",), problems)
    check_trainers(tables, raw, problems)
    check_analyses(tables, raw, problems)
    _check_tracking(tables.tracking, problems)


def _check_lists(tables: SpecTables, problems: Problems) -> None:
    metrics, primary = tables.evaluate.metrics, tables.evaluate.primary
    if primary and primary not in metrics:
        problems.add(("evaluate", "primary"), f'"{primary}" is not among evaluate.metrics: {", ".join(metrics)}')
    lists: dict[Path, list[Any]] = {("evaluate", "metrics"): [*metrics], ("study", "seeds"): [*tables.study.seeds]}
    for path, values in lists.items():
        seen = set()
        for number, value in enumerate(values):
            if value in seen:
                problems.add((*path, number), f"{show(value)} is listed twice")
            seen.add(value)


def _check_training(tables: SpecTables, problems: Problems) -> None:
    for name, table in (("train", tables.train), ("full", tables.full)):
        if table.bf16 and table.fp16:
            problems.add((name, "fp16"), f"cannot be true together with {name}.bf16")
        if table.warmup_ratio is not None and "warmup_steps" in table.model_fields_set:
            problems.add((name, "warmup_ratio"), "is the old name of a fractional warmup_steps; set one of the two")
        if table.max_steps == 0:
            problems.add((name, "max_steps"), "0 would train nothing; write -1 to use num_train_epochs")


def _check_validation(tables: SpecTables, varied: list[str], problems: Problems) -> None:
    """Refuse settings of evaluations that a run does not have, and a metric that nothing computes."""
    train, metrics = tables.train, tables.evaluate.metrics
    if train.eval_steps is None and "train.eval_steps" not in varied:
        for name in VALIDATION:
            if name in train.model_fields_set:
                problems.add(("train", name), "has no effect without evaluations; also set train.eval_steps")
    patience = {"train.early_stopping_patience", "train.early_stopping_threshold"} & {*varied}
    if train.early_stopping_threshold and train.early_stopping_patience is None and not patience:
        remedy = "also set early_stopping_patience"
        problems.add(("train", "early_stopping_threshold"), f"has no effect without early stopping; {remedy}")
    metric = train.metric_for_best_model
    if metric is None or metric == "log_loss" or (metric in metrics and not is_metric_file(metric)):
        return
    names = [name for name in metrics if not is_metric_file(name)]
    close = suggestion(metric, names) or f"; use one of them: {', '.join(dict.fromkeys(['log_loss', *names]))}"
    problems.add(("train", "metric_for_best_model"), f'"{metric}" is not a built-in metric of evaluate.metrics{close}')


def _check_data(data: DataTable, problems: Problems) -> None:
    if data.template:
        _check_template(data.template, problems)
        if data.format not in _TEMPLATED:
            problems.add(("data", "format"), "is set together with data.template; keep one of the two")
    _check_labels(data, problems)
    if data.template and data.format == "auto":
        return
    fields = FIELDS[data.format]
    for field in data.columns:
        if field not in fields:
            close = suggestion(field, fields) or f"; its fields: {', '.join(fields)}"
            problems.add(("data", "columns", field), f'is not a field of data.format = "{data.format}"{close}')


def _check_labels(data: DataTable, problems: Problems) -> None:
    if data.labels and data.format not in ("auto", "classification"):
        problems.add(("data", "labels"), f'names classes, and data.format = "{data.format}" has none')
    if data.labels and data.template and data.format == "auto":
        problems.add(("data", "labels"), 'names classes; with a template, also set format = "classification"')
    for value, name in data.labels.items():
        if list(data.labels.values()).count(name) > 1:
            problems.add(("data", "labels", value), f"{show(name)} is the name of two classes")


def _check_template(template: TemplateTable, problems: Problems) -> None:
    for part in ("prompt", "completion"):
        path = ("data", "template", part)
        try:
            names = [name for _, name, _, _ in Formatter().parse(getattr(template, part)) if name is not None]
        except ValueError:
            problems.add(path, "has an unmatched brace; write a literal brace twice: {{ or }}")
            continue
        if "" in names:
            problems.add(path, "has {} without a name; write the column's name between the braces")
        if part == "completion" and not names:
            problems.add(path, "names no column, so every example would have the same answer; write {column}")


def _check_tracking(tracking: TrackingTable, problems: Problems) -> None:
    """Refuse a password in an address, without showing it."""
    path: Path = ("tracking", "mlflow", "tracking_uri")
    address = tracking.mlflow.tracking_uri if tracking.mlflow else None
    try:
        if address is not None and urlsplit(address).password is not None:
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_URI, instead"
            problems.add(path, f"contains a password, and specs are kept in git; {remedy}")
    except ValueError:
        problems.add(
            path, "is not a valid address; write, for example, sqlite:///mlflow.db or https://mlflow.example.org"
        )


def with_defaults(tables: SpecTables) -> SpecTables:
    """Return the tables with what is measured, where the spec does not say: what a head can have, what a set brings."""
    evaluate, model = tables.evaluate, tables.model
    brought: dict[str, Any] = {}
    if model.task_type == "SEQ_CLS":
        brought["metrics"] = list(OF_NUMBERS if model.is_regression else OF_HEADS)
    else:
        brought |= evaluation(tables.data.like, tables.data.format, tables.data.template is not None)
        if "exact_match" not in evaluate.metrics:
            brought.pop("extract", None)
    brought = {name: value for name, value in brought.items() if name not in evaluate.model_fields_set}
    return tables.model_copy(update={"evaluate": evaluate.model_copy(update=brought)}) if brought else tables


def _check_regression(tables: SpecTables, problems: Problems) -> None:
    """Check that numbers are predicted where metrics read them, and nothing else is asked of a regression."""
    regression = tables.model.is_regression
    for number, metric in enumerate(tables.evaluate.metrics):
        if not is_metric_file(metric) and (metric in OF_REGRESSIONS) != regression:
            wrong = PREDICTS_NUMBERS if regression else NEEDS_NUMBERS
            problems.add(("evaluate", "metrics", number), f"{metric} {wrong}")
    if regression and tables.data.labels:
        problems.add(("data", "labels"), "names classes, and model.num_labels = 1 predicts numbers; keep one of them")
    if regression and tables.merge is not None and tables.merge.max_logit_difference is None:
        remedy = "set merge.max_logit_difference to the largest acceptable change in a predicted number"
        problems.add(("merge",), f"numbers have no log loss and no argmax; {remedy}")


def _check_evaluate(evaluate: EvaluateTable, data: DataTable, problems: Problems) -> None:
    """Check names of metric files, metrics that the format cannot have, and settings that no metric reads."""
    _check_metric_names(evaluate, problems)
    form = "template" if data.template and data.format == "auto" else data.format
    for number, metric in enumerate(evaluate.metrics):
        path = ("evaluate", "metrics", number)
        if metric in OF_CLASSES and form not in ("auto", "classification"):
            problems.add(path, f'{metric} needs data.format = "classification", not "{form}"')
        if metric in OF_PASSAGES and form not in ("auto", "squad"):
            problems.add(path, f'{metric} needs data.format = "squad", not "{form}"')
        if metric in OF_ANSWERS and form == "text":
            problems.add(path, f'{metric} needs answers, and data.format = "text" has none')
    if evaluate.tokenize is not None and not {*OF_WORDS} & {*evaluate.metrics}:
        problems.add(
            ("evaluate", "tokenize"), f"applies to {', '.join(OF_WORDS)}, and none of them is in evaluate.metrics"
        )
    for setting, reader in (("extract", "exact_match"), ("average", "f1"), ("pos_label", "f1")):
        if getattr(evaluate, setting) is not None and reader not in evaluate.metrics:
            problems.add(("evaluate", setting), f"applies to {reader}, which is not among evaluate.metrics")
    if evaluate.pos_label and evaluate.average not in (None, "binary"):
        problems.add(("evaluate", "pos_label"), f'has no meaning with average = "{evaluate.average}"')
    _check_extract(evaluate.extract, problems)
    if evaluate.prompts is not None and not evaluate.prompts.texts and not evaluate.prompts.path:
        problems.add(("evaluate", "prompts"), 'has no prompts; write texts = ["…"] or path = "prompts.txt"')
    for setting in ("lm_eval_limit", "lm_eval_num_fewshot", "lm_eval_include_path"):
        if getattr(evaluate, setting) is not None and not evaluate.lm_eval_tasks:
            problems.add(("evaluate", setting), "applies to evaluate.lm_eval_tasks, which is not set")
    for setting in ("temperature", "top_p", "top_k"):
        if getattr(evaluate, setting) is not None and not evaluate.do_sample:
            problems.add(("evaluate", setting), "has no effect without sampling; also set do_sample = true")
    if evaluate.do_sample and evaluate.num_beams > 1:
        remedy = "set do_sample = false, or num_beams = 1"
        problems.add(("evaluate", "num_beams"), f"beam search does not sample; {remedy}")


def _check_metric_names(evaluate: EvaluateTable, problems: Problems) -> None:
    seen: dict[str, str] = {}
    for number, metric in enumerate(evaluate.metrics):
        name, path = metric_label(metric), ("evaluate", "metrics", number)
        if is_metric_file(metric) and not re.fullmatch(r"[\w-]+", name):
            problems.add(path, f'{show(name)} becomes the metric\'s name: use letters, digits, "_" and "-"')
        elif is_metric_file(metric) and name in (*get_args(MetricName), "examples"):
            problems.add(path, f"{name} is the name of a built-in metric; rename the file")
        elif seen.get(name, metric) != metric:
            problems.add(path, f"{show(seen[name])} would have the same name, {name}; rename one of them")
        seen.setdefault(name, metric)


def _check_extract(extract: str | None, problems: Problems) -> None:
    if extract is None or extract in EXTRACTIONS:
        return
    path: Path = ("evaluate", "extract")
    wanted = f"should be {', '.join(map(show, EXTRACTIONS))}, or"
    try:
        groups = re.compile(extract).groups
    except (re.error, OverflowError, RecursionError) as error:
        problems.add(path, f"{wanted} a valid regular expression ({error})")
        return
    if groups != 1:
        remedy = f"not {groups}; write a non-capturing group as (?:…)" if groups else "not none: write (…)"
        problems.add(path, f"{wanted} a regular expression with one group, {remedy}{suggestion(extract, EXTRACTIONS)}")
