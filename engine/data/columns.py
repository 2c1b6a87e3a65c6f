"""Which columns each format of `[data]` reads, and which format a set of columns is. Imports no torch."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

from lorafile.engine.data.example import MISSING, NAN, no_text, placeholders
from lorafile.errors import ModelError, NodeError
from lorafile.units import column_list, header_hint

# Formats by what they read; a row may have any one of the sets.
REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "alpaca": (("instruction", "output"),),
    "chat": (("messages",),),
    "classification": (("text", "label"), ("sentence1", "sentence2", "label")),
    "completion": (("prompt", "completion"),),
    "guanaco": (("text",),),
    "question": (("question", "answer"),),
    "squad": (("context", "question", "answers"),),
    "text": (("text",),),
    "builtin:facts": (("question", "answer"),),
}
# What published layouts call a field: format -> field -> other names, an earlier one taken first.
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "chat": {"messages": ("conversations",)},
    "classification": {
        "text": ("sentence",),  # GLUE's SST-2 and CoLA
        "sentence1": ("#1 String", "question1", "premise"),  # MRPC's own files, QQP, MNLI
        "sentence2": ("#2 String", "question2", "hypothesis"),
        "label": ("Quality", "is_duplicate", "gold_label", "score"),  # MRPC, QQP, MNLI, STS-B
    },
}
# Format -> its fields that are texts, and whether a missing value is the empty text.
_FIELDS: dict[str, dict[str, bool]] = {
    "alpaca": {"instruction": False, "input": True, "output": True},
    "classification": {"text": False, "sentence1": False, "sentence2": False},
    "completion": {"prompt": False, "completion": True},
    "guanaco": {"text": False},
    "question": {"question": False, "answer": True},
    "squad": {"context": False, "question": False},
    "text": {"text": False},
}
_BESIDES = ("tools", "system", "history")  # what a conversation may have next to its turns
_BY_COLUMNS = (
    ("chat", ("messages",)),
    ("chat", ("conversations",)),
    ("alpaca", ("instruction", "output")),
    ("squad", ("context", "question", "answers")),
    ("completion", ("prompt", "completion")),
    ("question", ("question", "answer")),
    ("classification", ("sentence1", "sentence2", "label")),
    ("classification", ("#1 String", "#2 String", "Quality")),
    ("classification", ("sentence", "label")),
    ("classification", ("text", "label")),
    ("text", ("text",)),
)


def detect(columns: list[str], path: str, nested: Iterable[str] = ()) -> str:
    """Return the format of a data set by its columns.

    :param nested: those that hold lists or objects
    :raises NodeError: when no format fits
    """
    if path in REQUIRED:
        return path
    for name, needed in _BY_COLUMNS:
        if set(needed) <= set(columns):
            return name
    raise NodeError(
        f"data.format: the columns of {path} ({column_list(columns)}) match no known format. Assign them with "
        "data.columns, or write a data.template. For a table without a header line, set data.column_names."
        + nested_hint(nested)
    )


PREFERENCES = ("chosen", "rejected")
# What some format reads as lists or objects, or a message of its own tells of.
_STRUCTURED = ("messages", "conversations", "answers", "prompt", "completion", *PREFERENCES, *_BESIDES)


def nested_hint(columns: Iterable[str]) -> str:
    """Return a sentence where columns that hold lists or objects are read by no format."""
    names = [name for name in columns if name not in _STRUCTURED]
    if not names:
        return ""
    holds = "holds" if len(names) == 1 else "hold"
    return f" {column_list(names)} {holds} lists or objects: write one row for each example, with its texts as columns."


def is_preference_set(columns: list[str]) -> bool:
    """Return whether rows hold a better and a worse answer, as preference optimization (DPO) reads them."""
    return {*PREFERENCES} <= {*columns}


def preference_set(path: str) -> str:
    """Say what a set of preferences is, and what can be done with it."""
    return (
        f"{path} is a preference set (columns chosen, rejected), which training does not support. To train on the "
        'better answers only, set a data.template, or a data.format with columns such as { messages = "chosen" }.'
    )


RATING = "label"  # the column that may rate answers
_RATED = ("alpaca", "chat", "completion", "question")  # formats whose answer a label may call good or bad
_RATINGS = ({"true", "false"}, {"0", "1"})


def is_unpaired_preference_set(form: str, labels: Iterable[str]) -> bool:
    """Return whether each row holds one answer and seems to say whether it is a good one, as KTO reads them.

    :param labels: the distinct values of the column `label`, as text
    """
    return form in _RATED and {value.casefold() for value in labels} in _RATINGS


def unpaired_preference_set(path: str, form: str, labels: Iterable[str], start: str = "") -> str:
    """Say what a set of rated answers is, and what can be done with it.

    :param start: what comes before the settings are set, where there is no spec yet
    """
    good, bad = ("1", "0") if "1" in labels else ("true", "false")
    return (
        f"{path} seems to be an unpaired preference set (its column label is {good} for good answers and {bad} for bad "
        f"ones), which training does not support. {start}To train on the good answers only, set "
        f'data.where = {{ label = [{good}] }}. If label says something else, set data.format = "{form}".'
    )


def cluster_column(cluster: str | None, form: str, columns: dict[str, str], names: list[str]) -> str | None:
    """Return the column by which rows belong together, or None: what `data.cluster` says, or SQuAD's contexts.

    :param form: what `data.format` says; `columns` and `template` of the spec do not change what belongs together
    :raises ModelError: when there is no such column
    """
    if cluster and cluster not in names:
        raise ModelError(
            f'data.cluster: there is no column "{cluster}"; the columns are: {column_list(names)}.{header_hint(names)}'
        )
    if cluster is not None:
        return cluster or None
    context = columns.get("context", "context")
    squad = form == "squad" or (form == "auto" and {"question", "answers", context} <= {*names})
    return context if squad and context in names else None


def label_column(columns: dict[str, str], names: list[str]) -> str | None:
    """Return the column that holds the classes: what `data.columns` says, or one that is called so."""
    named = columns.get("label")
    aliases = [name for name in ALIASES["classification"]["label"] if name != "score" or "sentence2" in names]
    candidates = [named] if named else ["label", *aliases]
    return next((name for name in candidates if name in names), None)


def answers_column(columns: dict[str, str], names: list[str]) -> str | None:
    """Return the column that holds accepted answers, as SQuAD's rows have them: those that have a context, too."""
    fields = [columns.get(field, field) for field in ("context", "question", "answers")]
    return fields[-1] if set(fields) <= set(names) else None


def check_columns(data: dict[str, Any], columns: list[str], data_name: str, nested: Iterable[str] = ()) -> None:
    """Check that a data set has the columns that its format or template reads.

    :param nested: those that hold lists or objects
    :raises NodeError: naming the missing column and those that there are
    """
    reads = "data.template" if data["template"] else f'data.format = "{data["format"]}"'
    readable = _named(data, columns)
    sets = [_template_columns(data)] if data["template"] else list(REQUIRED[data["format"]])
    missing = [[name for name in needed if name not in readable] for needed in sets]
    if not all(missing):
        return
    name = data["columns"].get(missing[0][0], missing[0][0])
    raise NodeError(
        f'{data_name} has no column "{name}", which {reads} needs; its columns are: {column_list(columns)}. '
        "Assign the columns with data.columns, or write a data.template."
        f"{header_hint(columns)}{nested_hint(nested)}"
    )


def check_texts(data: dict[str, Any], kinds: dict[str, list[str]], data_name: str) -> None:
    """Check that what fills a text can.

    :param kinds: column -> what some of its values are that are no text, as a lock has it
    :raises NodeError: naming the column
    """
    for field, may_be_missing in _texts(data, kinds).items():
        column = next((name for name in _columns_of(data, field) if name in kinds), field)
        for kind in kinds.get(column, ()):
            if not (may_be_missing and kind in MISSING):
                raise NodeError(f"{data_name}: {no_text(column, kind)}.")


def reads_otherwise(data: dict[str, Any], kinds: dict[str, list[str]]) -> bool:
    """Return whether a data set holds what `prepare` once wrote as Python does, and reads now: NaN, or messages."""
    texts = _texts(data, kinds)
    messages = data["format"] == "completion" and not data["template"] and not texts
    return messages or any(NAN in kinds.get(column, ()) for field in texts for column in _columns_of(data, field))


def read_columns(form: str, template: str, columns: dict[str, str], names: list[str]) -> list[str]:
    """Return the columns that a format or template reads, in the data's order; all of them where none would be.

    :param template: the texts of `data.template`; empty without one
    :param columns: `data.columns`; `names`: the data's own
    """
    if template:
        fields = {"answers" if field == "answer" else field for field in placeholders(template)}
    else:
        fields = {*_FIELDS.get(form, {}), *chain.from_iterable(REQUIRED.get(form, ()))}
    data = {"format": form, "columns": columns}
    read = {*_BESIDES, *chain.from_iterable(_columns_of(data, field) for field in fields)}
    return [name for name in names if name in read] or names


def _texts(data: dict[str, Any], kinds: dict[str, list[str]]) -> dict[str, bool]:
    """Return field -> whether it may be missing, of the fields that fill a text."""
    form, template = data["format"], data["template"]
    if template and form != "squad":
        given = [
            name for name in placeholders(template["prompt"]) if not (form == "classification" and name == "label")
        ]
        return {
            **dict.fromkeys(placeholders(template["completion"]), form != "classification"),
            **dict.fromkeys(given, False),
        }
    if form == "completion" and all(
        "a list" in kinds.get(data["columns"].get(name, name), ()) for name in ("prompt", "completion")
    ):
        return {}  # messages
    return _FIELDS.get(form, {})


def _columns_of(data: dict[str, Any], field: str) -> tuple[str, ...]:
    """Return the names that a column of a field may have."""
    return (data["columns"].get(field, field), *ALIASES.get(data["format"], {}).get(field, ()))


def _named(data: dict[str, Any], columns: list[str]) -> set[str]:
    """Return the names under which a row's columns can be read."""
    names = set(columns) | {name for name, column in data["columns"].items() if column in columns}
    for name, others in ALIASES.get(data["format"], {}).items():
        if (set(others) & set(columns)) - {*data["columns"].values()}:
            names.add(name)
    return names - {name for name, column in data["columns"].items() if column not in columns}


def _template_columns(data: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns that a template reads; a squad template's `{answer}` is the row's first of `answers`."""
    names = placeholders(data["template"]["prompt"] + data["template"]["completion"])
    squad = data["format"] == "squad"
    return tuple(dict.fromkeys("answers" if squad and name == "answer" else name for name in names))
