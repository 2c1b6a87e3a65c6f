"""A row as a model reads it: `Example`, and what makes one from a row: a template, or a chat template. No torch."""

import json
import math
import re
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from decimal import Decimal
from string import Formatter
from typing import Any

from lorafile.errors import NodeError
from lorafile.units import column_list

REASONING = ("</think>", "[/THINK]", "</thinking>", "</thought>", "</reasoning>")  # what closes a block of reasoning

Row = dict[str, Any]
Spans = tuple[tuple[int, int], ...]  # (start, end) in characters
_KINDS = {dict: "an object", list: "a list", tuple: "a list", bytes: "bytes", float: "a number that is not finite"}
NULL, NAN = "null", "NaN"  # missing values; pandas writes NaN for an empty cell
MISSING = (NULL, NAN)
NESTED = {"a list", "an object"}


@dataclass(frozen=True)
class Example:
    """One example as text: what the model reads, and what it should write.

    :ivar reference: the answer that a greedy one is compared with; of a regression, the number
    :ivar special: whether the text already holds the tokenizer's special tokens, as a chat template's does
    :ivar turns: where the earlier answers stand inside the prompt; these are supervised, too
    :ivar marked: where the text is that a chat template marks as the assistant's own: just this is supervised, then
    :ivar pair: the second of two sentences that an encoder reads, of which the prompt is the first
    :ivar about: what its predictions carry for their metrics, by name: `choices`, `references`, …
    """

    prompt: str
    completion: str
    reference: str | float
    special: bool = False
    turns: Spans = ()
    marked: Spans | None = None
    pair: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The example as one text."""
        return self.prompt + self.completion


Render = Callable[[Row], Example]


@dataclass(frozen=True)
class Chat:
    """A chat template.

    :ivar text: messages, tools -> their text; the flag opens the assistant's turn
    :ivar marked: messages, tools -> where the text is that the template itself marks as the assistant's own
        (`{% generation %}`), or None where it marks nothing
    :ivar visible: a text -> the text without special tokens, as answers are decoded
    :ivar reasoning: what closes the block of reasoning that the template writes before an answer, or nothing
    """

    text: Callable[[list[Any], bool, list[Any] | None], str]
    marked: Callable[[list[Any], list[Any] | None], Spans | None] = lambda _messages, _tools: None
    visible: Callable[[str], str] = str
    reasoning: str = ""

    def between(self) -> str:
        """Return what stands between an answer and the next question; nothing where the template alters them."""
        answer, question = "Zq1", "Zq2"
        turns = [("user", "Zq0"), ("assistant", answer), ("user", question)]
        text = self.text([{"role": role, "content": content} for role, content in turns], False, None)
        return text.partition(answer)[2].partition(question)[0] if question in text.partition(answer)[2] else ""


def is_missing(value: Any) -> bool:
    """Return whether a value is null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def cluster_of(row: Row, column: str, number: int) -> str:
    """Return to what a row belongs: the text of a column; a row without a value belongs to itself alone.

    :param number: the row's own
    """
    value = row.get(column)
    if is_missing(value) or value == "":
        return f"row {number}"
    return f"= {json.dumps(value, sort_keys=True, default=str)}"


def kind_of(value: Any) -> str:
    """Return in words what a value is that is no text; nothing for a string, a finite number or a truth value."""
    if isinstance(value, (str, bool, int)) or (isinstance(value, (float, Decimal)) and math.isfinite(value)):
        return ""
    if is_missing(value):
        return NULL if value is None else NAN
    return next((words for kind, words in _KINDS.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def text_of(row: Row, column: str, may_be_missing: bool = False) -> str:
    """Return the text of a column: a string as it stands, a finite number or a truth value as Python writes it.

    :param may_be_missing: a missing value is the empty text
    :raises NodeError: when it is anything else, which no text can be made of without a guess
    """
    kind = kind_of(row[column])
    if kind in MISSING and may_be_missing:
        return ""
    if kind:
        raise NodeError(f"data: {no_text(column, kind)}")
    return str(row[column])


def no_text(column: str, kind: str) -> str:
    """Say that a column holds what no text can be made of without a guess."""
    name = column if re.fullmatch(r"[\w.-]+", column) else f'"{column}"'
    leave_out = f"""fill it in, or exclude such rows: data.where = '{name} != ""'"""
    remedy = leave_out if kind in MISSING else "store text there"
    return f'the column "{column}" contains {kind} where text is needed; {remedy}'


def placeholders(template: str) -> list[str]:
    """Return the columns that a template names, each once, in their order."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))


def literal_beginning(template: str) -> str:
    """Return the text of a template before the first column, which all prompts begin with."""
    literal, _, _, _ = next(iter(Formatter().parse(template)), ("", None, None, None))
    return literal


def fill(template: str, row: Row, may_be_missing: Container[str] = ()) -> str:
    """Fill `{column}` places; doubled braces are braces, and a row's own text is never read as a template.

    :param may_be_missing: columns of which a missing value is the empty text
    :raises NodeError: when the row has no such column, or no text in it
    """
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            if name not in row:
                raise NodeError(f'data: a row has no column "{name}"; its columns are: {column_list(row)}.')
            parts.append(text_of(row, name, name in may_be_missing))
    return "".join(parts)
