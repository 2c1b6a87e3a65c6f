"""Rows to text: what a model reads, and what it should write, for each format of `[data]`. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from lorafile.engine.data.columns import ALIASES
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
# Formats that are a template of two columns: name -> (prompt, completion).
TEMPLATES = {
    "completion": ("{prompt}", "{completion}"),
    "question": ("Question: {question}\nAnswer:", " {answer}"),
    "builtin:facts": ("question : {question} answer :", " {answer}"),
}


@dataclass(frozen=True)
class Example:
    """One example as text: what the model reads, and what it should write.

    :ivar reference: the answer that a greedy one is held against
    :ivar special: whether the text already holds the tokenizer's special tokens, as a chat template's does
    :ivar turns: (start, end) of each earlier answer inside the prompt, in characters; these are supervised, too
    :ivar about: what its predictions carry for their metrics, by name: `choices`, `references`, …
    """

    prompt: str
    completion: str
    reference: str
    special: bool = False
    turns: tuple[tuple[int, int], ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The example as one text."""
        return self.prompt + self.completion


Row = dict[str, Any]
Render = Callable[[Row], Example]


@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template.

    :ivar text: messages -> their text; the flag opens the assistant's turn
    :ivar marked: messages -> (start, end) in characters of what the template itself marks as the assistant's own
        (`{% generation %}`), or None where it marks nothing
    """

    text: Callable[[list[Any], bool], str]
    marked: Callable[[list[Any]], list[tuple[int, int]] | None] = lambda _: None


def renderer(data: dict[str, Any], chat: Chat) -> Render:
    """Return the function from a row to its text.

    :param data: resolved data settings: `format` (not `auto`), `template`, `columns`, and what the format has
    """
    from lorafile.engine.data.conversations import chat_example, guanaco_example
    from lorafile.engine.data.labels import label_example
    from lorafile.engine.data.passages import passage_example

    form, columns = data["format"], data["columns"]
    readers: dict[str, Render] = {
        "alpaca": _alpaca,
        "chat": lambda row: chat_example(row, chat),
        "classification": lambda row: label_example(row, data),
        "guanaco": guanaco_example,
        "squad": lambda row: passage_example(row, data),
        "text": lambda row: _answered("", str(row["text"])),
    }
    if form in readers:
        read = readers[form]
    else:
        written = data["template"]
        prompt, completion = (written["prompt"], written["completion"]) if written else TEMPLATES[form]
        read = lambda row: _answered(fill(prompt, row), fill(completion, row))  # noqa: E731
    return lambda row: read(named(row, columns, form))


def named(row: Row, columns: dict[str, str], form: str) -> Row:
    """Return a row under the names of its format's fields, as the spec or the published layouts call them."""
    found = {key: "" if value is None else value for key, value in row.items()}
    for field_, others in ALIASES.get(form, {}).items():
        here = next((name for name in others if name in found), None)
        if here is not None and field_ not in found:
            found[field_] = found[here]
    return found | {name: found[column] for name, column in columns.items() if column in found}


def fill(template: str, row: Row) -> str:
    """Fill `{column}` places; doubled braces are braces, and a row's own text is never read as a template.

    :raises NodeError: when the row has no such column
    """
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


def _alpaca(row: Row) -> Example:
    template = ALPACA_INPUT if str(row.get("input", "")).strip() else ALPACA
    return _answered(fill(template, row), str(row["output"]))
