"""What a data set is, by its columns: which format reads it, and what its answers are like."""

import json
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from lorafile.engine.data.columns import detect
from lorafile.errors import LoraError, NodeError

# Names that data sets give to one and the same thing; an earlier one is taken first.
_INSTRUCTION = ("instruction", "instructions", "task")
_INPUT = ("input", "context")
_QUESTION = ("question", "query", "problem", "q")
_PROMPT = ("prompt", "input", "inputs", "source", "src", "document", "article", "text", "sentence")
_ANSWER = (
    "output",
    "answer",
    "completion",
    "response",
    "target",
    "targets",
    "solution",
    "reply",
    "summary",
    "label",
    "a",
)
_TEXT = ("text", "content", "document", "body", "article", "story", "sentence")
_PASSAGE = ("context", "passage")
_LABELLED = ("text", "sentence", "review", "comment", "tweet", "content", "body", "title")
_GUANACO = "### Assistant:"
_METRICS = {
    "classification": ("accuracy", "log_loss"),
    "squad": ("squad_f1", "squad_exact", "log_loss"),
}
_SHORT = 80  # characters: what a model can be expected to give word for word


@dataclass(frozen=True)
class DataGuess:
    """What a spec has to say of its data beside their path; nothing of what `format = "auto"` sees by itself."""

    format: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    template: dict[str, str] = field(default_factory=dict)
    short_answers: bool = False
    metrics: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return the settings as lines of `[data]`."""
        found: tuple[str, ...] = (f'format = "{self.format}"',) if self.format else ()
        for name, table in (("columns", self.columns), ("template", self.template)):
            if table:
                inner = ", ".join(f"{key} = {_string(value)}" for key, value in table.items())
                found += (f"{name} = {{ {inner} }}",)
        return found


def guess(rows: list[dict[str, Any]], name: str) -> DataGuess:
    """Return how the first rows of a data set can be read.

    :raises LoraError: when no column is of use
    """
    columns = [str(column) for column in rows[0]]
    usable = [column for column in columns if _is_text(rows, column)]
    others = [column for column in columns if _is_chat(rows, column) or _is_answers(rows, column)]
    try:
        known = detect(usable + others, name)
    except NodeError:
        return _by_synonyms(rows, columns, usable, name)
    if known == "text" and all(_GUANACO in str(row.get("text")) for row in rows):
        return DataGuess("guanaco")
    if known in _METRICS:
        return DataGuess(metrics=_METRICS[known])
    answer = {"alpaca": "output", "completion": "completion", "question": "answer"}.get(known)
    return DataGuess(short_answers=bool(answer and _short(rows, answer)))


def _by_synonyms(rows: list[dict[str, Any]], columns: list[str], usable: list[str], name: str) -> DataGuess:
    chat = next((column for column in columns if _is_chat(rows, column)), None)
    if chat:
        return DataGuess("chat", {"messages": chat})
    text = _first([column for column in usable if column != "label"], _LABELLED)
    if text and "label" in usable:
        return DataGuess("classification", {"text": text} if text != "text" else {}, metrics=_METRICS["classification"])
    answer = _first(usable, _ANSWER)
    rest = [column for column in usable if column != answer]
    instruction, question, prompt = (_first(rest, words) for words in (_INSTRUCTION, _QUESTION, _PROMPT))
    if answer and instruction:
        fields = {"instruction": instruction, "input": _first(rest, _INPUT), "output": answer}
        renamed = {key: column for key, column in fields.items() if column and column != key}
        return DataGuess("alpaca", renamed, short_answers=_short(rows, answer))
    if answer and question and not _unfit((question, answer)):
        passage = _first(rest, _PASSAGE)
        before = f"{{{passage}}}\n\n" if passage and not _unfit((passage,)) else ""
        template = {"prompt": f"{before}Question: {{{question}}}\nAnswer:", "completion": f" {{{answer}}}"}
        return DataGuess(template=template, short_answers=_short(rows, answer))
    asks = prompt or question
    if answer and asks and not _unfit((asks, answer)):
        template = {"prompt": f"{{{asks}}}\n", "completion": f"{{{answer}}}"}
        return DataGuess(template=template, short_answers=_short(rows, answer))
    if answer and asks:
        return DataGuess("completion", {"prompt": asks, "completion": answer}, short_answers=_short(rows, answer))
    text = _first(usable, _TEXT) or (usable[0] if len(usable) == 1 else None)
    if text:
        return DataGuess("text", {"text": text} if text != "text" else {})
    listed = ", ".join(columns) or "none"
    raise LoraError(
        f"--data {name}: its columns ({listed}) do not tell what is a question, an answer, or a text. Write a spec "
        'without --data, and say it there in [data]: template = { prompt = "{column}", completion = " {other column}" }'
    )


def _first(columns: list[str], words: tuple[str, ...]) -> str | None:
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[word] for word in words if word in by_name), None)


def _is_text(rows: list[dict[str, Any]], column: str) -> bool:
    values = [row.get(column) for row in rows]
    kinds = (str, int, float, type(None))
    return all(isinstance(value, kinds) for value in values) and any(value not in (None, "") for value in values)


def _is_chat(rows: list[dict[str, Any]], column: str) -> bool:
    """Return whether a column holds messages of `role` and `content`, or ShareGPT's of `from` and `value`."""
    turns = rows[0].get(column)
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        return False
    return all({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys() for turn in turns)


def _is_answers(rows: list[dict[str, Any]], column: str) -> bool:
    """Return whether a column holds the accepted answers of SQuAD."""
    answers = rows[0].get(column)
    return isinstance(answers, dict) and "text" in answers


def _short(rows: list[dict[str, Any]], column: str) -> bool:
    return median(len(str(row.get(column) or "")) for row in rows) <= _SHORT


def _unfit(columns: tuple[str, ...]) -> bool:
    """Return whether a template cannot name one of these columns."""
    return any(mark in column for column in columns for mark in "{}:!")


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
