"""Labels: classes as text, with the name of the class as the answer, and the numbers of a regression. No torch."""

import math
from collections.abc import Iterable
from typing import Any

from lorafile.engine.data.example import Example, Row, fill, is_missing
from lorafile.errors import NodeError

LEAVE_OUT = """Exclude such rows: data.where = 'label != ""'"""
HIDDEN = "-1"  # what GLUE's test sets have in place of their labels
_MOST_LISTED = 20  # labels that a prompt names; with more of them it would be longer than its text
PROMPTS = _SINGLE, _PAIR = "Text: {text}\n", "Sentence 1: {sentence1}\nSentence 2: {sentence2}\n"


def label_key(value: Any) -> str:
    """Return a class as text: 1, 1.0 and "1" are one, and null and NaN are none, the empty text."""
    if is_missing(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def number_of(value: Any) -> float | None:
    """Return a label as a finite number, also one that is written as text; None where it is none."""
    try:
        number = float(label_key(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def classes(values: Iterable[str], names: dict[str, str]) -> list[list[str]]:
    """Return [value, name] of every class in one order: numbers by size, words by the alphabet.

    :param values: the data's own, without hidden ones
    :param names: value -> name, from `data.labels`; without any, a class is called by its value
    :raises NodeError: when a class has no name, two have one, or labels are fractions without names
    """
    values = list(values)
    fractions = [value for value in values if not (number_of(value) or 0.0).is_integer()]
    if fractions and not names:
        raise NodeError(
            f'the data\'s labels are not classes: "{min(fractions, key=_order)}" is not a whole number. To predict '
            'numbers, set model.num_labels = 1 with model.task_type = "SEQ_CLS"; if each is its own class, '
            "name them all in data.labels"
        )
    # A published file may hold the names themselves where another layout of the same set holds numbers.
    unnamed = [value for value in values if names and value not in names and value not in names.values()]
    if unnamed:
        raise NodeError(f'does not name the class "{unnamed[0]}" in the data; add it: "{unnamed[0]}" = "…"')
    name_of = names or {value: value for value in values}
    if len(set(name_of.values())) < len(name_of):
        raise NodeError("gives two classes the same name")
    if len(name_of) < 2:
        raise NodeError(f"{len(name_of)} class is too few: the data's labels are {', '.join(values) or 'empty'}")
    return [[value, name_of[value]] for value in sorted(name_of, key=_order)]


def _order(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def label_example(row: Row, data: dict[str, Any]) -> Example:
    """Return a row of a classification: its text and the names of the classes in the prompt, its class to be written.

    The names stand in the prompt so that an untuned model is asked a question that it can answer.

    :raises NodeError: when the row's class is hidden or not among those known
    """
    if data.get("num_labels") == 1:
        return _number_example(row, data)
    values = dict(data["labels"])
    names = list(values.values())
    key = label_key(row["label"])
    name = values.get(key, key if key in names else None)
    if name is None:
        unknown = f'a row has the unknown label "{key}"' if key else f"a row has no label. {LEAVE_OUT}"
        raise NodeError(f"data.split: {hidden_labels()}" if key == HIDDEN else f"data.labels: {unknown}")
    written = data["template"] or {"prompt": _prompt(row, names), "completion": " {label}"}
    prompt, pair = _of_head(row, data) if data.get("task_type") == "SEQ_CLS" else (fill(written["prompt"], row), None)
    completions = [fill(written["completion"], {**row, "label": choice}) for choice in names]
    about = {"choices": names, "completions": completions}
    return Example(prompt, completions[names.index(name)], name, pair=pair, about=about)


def _number_example(row: Row, data: dict[str, Any]) -> Example:
    """Return a row of a regression: its text, and its number, which a head reads from `reference` alone.

    :raises NodeError: when the label is no number
    """
    number = number_of(row["label"])
    if number is None:
        raise NodeError(
            f'model.num_labels: 1 predicts numbers, but the label "{label_key(row["label"])}" is not a number.'
        )
    written = data["template"] or {"completion": " {label}"}
    completion = fill(written["completion"], {**row, "label": label_key(number)})
    prompt, pair = _of_head(row, data)
    return Example(prompt, completion, number, pair=pair)


def _of_head(row: Row, data: dict[str, Any]) -> tuple[str, str | None]:
    """Return what a head reads: the text alone, or both sentences, each in a line, and then the second one of them."""
    if data["template"]:
        return fill(data["template"]["prompt"], row), None
    if "text" in row:
        return fill("{text}", row), None
    return fill("{sentence1}\n{sentence2}", row), str(row["sentence2"])


def hidden_labels() -> str:
    """Say what a label of -1 is."""
    return (
        "a row has the label -1, which means no label: GLUE's published test sets hide labels this way, and other "
        'sets mark rows on which annotators disagreed. Exclude such rows: data.where = "label >= 0".'
    )


def too_many_labels(column: str) -> str:
    """Say what a label column of more values than classes can be is."""
    return (
        f'the label column "{column}" has too many values to be classes; to predict them as numbers, set '
        'model.num_labels = 1 with model.task_type = "SEQ_CLS"'
    )


def _prompt(row: Row, names: list[str]) -> str:
    listed = ", ".join(names).replace("{", "{{").replace("}", "}}")
    question = f"Label ({listed}):" if len(names) <= _MOST_LISTED else "Label:"
    return (_SINGLE if "text" in row else _PAIR) + question
