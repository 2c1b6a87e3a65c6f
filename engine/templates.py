"""Rows to text: the formats of `[data]`, and which one a set of columns is. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lorafile.errors import NodeError

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n"
    "### Response:\n"
)
# Formats that are a template: name -> (prompt, completion, columns that the format cannot do without).
TEMPLATES = {
    "completion": ("{prompt}", "{completion}", ("prompt", "completion")),
    "question": ("Question: {question}\nAnswer:", " {answer}", ("question", "answer")),
    "builtin:facts": ("question : {question} answer :", " {answer}", ("question", "answer")),
}
_BY_COLUMNS = (
    ("chat", ("messages",)),
    ("alpaca", ("instruction", "output")),
    ("completion", ("prompt", "completion")),
    ("question", ("question", "answer")),
    ("text", ("text",)),
)
REQUIRED = {
    "alpaca": ("instruction", "output"),
    "chat": ("messages",),
    "text": ("text",),
    "completion": ("prompt", "completion"),
}


@dataclass(frozen=True)
class Example:
    """One example as text: what the model reads, and what it should write.

    :ivar reference: the answer that a greedy one is held against
    :ivar special: whether the text already holds the tokenizer's special tokens, as a chat template's does
    """

    prompt: str
    completion: str
    reference: str
    special: bool = False


def detect(columns: list[str], path: str) -> str:
    """Return the format of a data set by its columns.

    :raises NodeError: when no format fits
    """
    if path in TEMPLATES:
        return path
    for name, needed in _BY_COLUMNS:
        if set(needed) <= set(columns):
            return name
    raise NodeError(
        f"data.format: the columns of {path} ({', '.join(columns)}) fit no known format. Name them with "
        "data.columns, or write a data.template."
    )


def needed_columns(data: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns that a resolved format or template reads."""
    if data["template"]:
        from string import Formatter

        text = data["template"]["prompt"] + data["template"]["completion"]
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(text) if name))
    name = data["format"]
    fields = TEMPLATES[name][2] if name in TEMPLATES else REQUIRED[name]
    return tuple(data["columns"].get(field, field) for field in fields)


def check_columns(data: dict[str, Any], columns: list[str], where: str) -> None:
    """Check that a data set has the columns that its format or template reads.

    :raises NodeError: naming the missing column and those that there are
    """
    reads = "data.template" if data["template"] else f'data.format = "{data["format"]}"'
    for name in needed_columns(data):
        if name not in columns and name not in data["columns"]:
            raise NodeError(
                f'{where} has no column "{name}", which {reads} reads; its columns are: {", ".join(columns)}. '
                "Say which is which with data.columns, or write a data.template."
            )


def renderer(data: dict[str, Any], chat: Callable[[list[Any], bool], str]) -> Callable[[dict[str, Any]], Example]:
    """Return the function from a row to its text.

    :param data: resolved data settings: `format` (not `auto`), `template`, `columns`
    :param chat: renders messages with the tokenizer's chat template; the flag opens the assistant's turn
    """
    columns = data["columns"]

    def named(row: dict[str, Any]) -> dict[str, Any]:
        renamed = {field: row[column] for field, column in columns.items() if column in row}
        return {key: "" if value is None else value for key, value in {**row, **renamed}.items()}

    if data["template"] or data["format"] in TEMPLATES:
        written = data["template"]
        prompt, completion = (written["prompt"], written["completion"]) if written else TEMPLATES[data["format"]][:2]
        return lambda row: _answered(fill(prompt, named(row)), fill(completion, named(row)))
    if data["format"] == "alpaca":
        return lambda row: _alpaca(named(row))
    if data["format"] == "chat":
        return lambda row: _chat(named(row), chat)
    return lambda row: _answered("", str(named(row)["text"]))


def fill(template: str, row: dict[str, Any]) -> str:
    """Fill `{column}` places; doubled braces are braces, and a row's own text is never read as a template.

    :raises NodeError: when the row has no such column
    """
    from string import Formatter

    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            if name not in row:
                raise NodeError(f'data: a row has no column "{name}"; its columns are: {", ".join(map(str, row))}.')
            parts.append(str(row[name]))
    return "".join(parts)


def _answered(prompt: str, completion: str) -> Example:
    return Example(prompt, completion, completion)


def _alpaca(row: dict[str, Any]) -> Example:
    template = ALPACA_INPUT if str(row.get("input", "")).strip() else ALPACA
    return _answered(fill(template, row), str(row["output"]))


def _chat(row: dict[str, Any], chat: Callable[[list[Any], bool], str]) -> Example:
    messages = row["messages"]
    if not isinstance(messages, list) or not messages or messages[-1].get("role") != "assistant":
        raise NodeError("data: a chat row needs `messages` that end with the assistant's turn.")
    prompt = chat(messages[:-1], True)
    whole = chat(messages, False)
    if not whole.startswith(prompt):
        raise NodeError("data: the tokenizer's chat template does not open the assistant's turn as it writes it.")
    return Example(prompt, whole[len(prompt) :], str(messages[-1]["content"]), special=True)
