"""Which columns each format of `[data]` reads, and which format a set of columns is. Imports no torch."""

from string import Formatter
from typing import Any

from lorafile.errors import NodeError

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
        "sentence1": ("#1 String",),  # MRPC's own files
        "sentence2": ("#2 String",),
        "label": ("Quality",),
    },
}
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


def detect(columns: list[str], path: str) -> str:
    """Return the format of a data set by its columns.

    :raises NodeError: when no format fits
    """
    if path in REQUIRED:
        return path
    for name, needed in _BY_COLUMNS:
        if set(needed) <= set(columns):
            return name
    raise NodeError(
        f"data.format: the columns of {path} ({', '.join(columns)}) fit no known format. Name them with "
        "data.columns, or write a data.template."
    )


def label_column(columns: dict[str, str], known: list[str]) -> str | None:
    """Return the column that holds the classes: what `data.columns` says, or one that is called so."""
    named = columns.get("label")
    names = [named] if named else ["label", *ALIASES["classification"]["label"]]
    return next((name for name in names if name in known), None)


def check_columns(data: dict[str, Any], columns: list[str], where: str) -> None:
    """Check that a data set has the columns that its format or template reads.

    :raises NodeError: naming the missing column and those that there are
    """
    reads = "data.template" if data["template"] else f'data.format = "{data["format"]}"'
    known = _named(data, columns)
    sets = [_placed(data)] if data["template"] else list(REQUIRED[data["format"]])
    missing = [[name for name in needed if name not in known] for needed in sets]
    if not all(missing):
        return
    name = data["columns"].get(missing[0][0], missing[0][0])
    raise NodeError(
        f'{where} has no column "{name}", which {reads} reads; its columns are: {", ".join(columns)}. '
        "Say which is which with data.columns, or write a data.template."
    )


def _named(data: dict[str, Any], columns: list[str]) -> set[str]:
    """Return the names under which a row's columns can be read."""
    found = set(columns) | {name for name, column in data["columns"].items() if column in columns}
    for name, others in ALIASES.get(data["format"], {}).items():
        if set(others) & set(columns):
            found.add(name)
    return found - {name for name, column in data["columns"].items() if column not in columns}


def _placed(data: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns that a template names; the label of a classification and the answer to a passage among them.

    A squad template's `{answer}` is the row's first answer, which stands in `answers`.
    """
    text = data["template"]["prompt"] + data["template"]["completion"]
    names = dict.fromkeys(name for _, name, _, _ in Formatter().parse(text) if name)
    if data["format"] == "squad":
        names = dict.fromkeys("answers" if name == "answer" else name for name in names)
    return tuple(names)
