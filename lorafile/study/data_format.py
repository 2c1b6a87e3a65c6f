"""What a data set is, by its columns and first rows: what `lora init` writes of it."""

import json
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from lorafile.engine.data.columns import (
    RATING,
    detect,
    is_preference_set,
    is_unpaired_preference_set,
    nested_hint,
    preference_set,
    unpaired_preference_set,
)
from lorafile.engine.data.example import NESTED, kind_of
from lorafile.engine.data.files import FORMATS, SUFFIXES, Reading, suffix_of
from lorafile.engine.data.labels import number_of
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.sources import data_files
from lorafile.engine.data.templates import check_media
from lorafile.errors import LoraError, ModelError, NodeError
from lorafile.specs.catalogue import catalogue
from lorafile.units import column_list, header_hint

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
_CLASSES = ("label", "labels", "category", "class", "intent", "sentiment", "topic", "target", "score", "quality")
_LABELS = ("label", "labels", "category", "class", "intent", "sentiment")  # what is meant by nothing else
_PAIRS = (("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"))
# The directories in which GLUE is published: name -> name in the catalogue.
_GLUE = {name.lower(): name.lower() for name in ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "WNLI")}
_GLUE |= {"sst-2": "sst2", "sts-b": "stsb"}
_GUANACO = "### Assistant:"
_METRICS = {
    "classification": ("accuracy", "log_loss"),
    "squad": ("squad_f1", "squad_exact", "log_loss"),
}
_SHORT = 80  # characters: what a model can be expected to give word for word


@dataclass(frozen=True)
class DataFormat:
    """What a spec says of its data next to their path, except for what `format = "auto"` detects by itself."""

    format: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    template: dict[str, str] = field(default_factory=dict)
    answer_length: float | None = None  # median characters of the answers
    metrics: tuple[str, ...] = ()
    like: str = ""
    numbers: bool = False  # labels are fractions, which are predicted and not chosen from
    detected: str = ""  # what `format = "auto"` takes them for
    names: tuple[str, ...] = ()  # of the columns that there are

    @property
    def short_answers(self) -> bool:
        """Whether a model can be expected to give answers word for word."""
        return self.answer_length is not None and self.answer_length <= _SHORT

    def lines(self) -> tuple[str, ...]:
        """Return the settings as lines of `[data]`."""
        settings = {"format": self.format, "like": self.like}
        lines = tuple(f'{name} = "{value}"' for name, value in settings.items() if value)
        for name, table in (("columns", self.columns), ("template", self.template)):
            if table:
                inner = ", ".join(f"{key} = {toml_string(value)}" for key, value in table.items())
                lines += (f"{name} = {{ {inner} }}",)
        return lines


def toml_string(text: str) -> str:
    """Return a text as a TOML basic string.

    :raises LoraError: where TOML cannot hold it: file names that are no text
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LoraError(f"{text!a} cannot be written in a spec, because it is not UTF-8. Rename it.") from error
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def looks_local(name: str) -> bool:
    """Return whether a name can only be meant for this machine: a hub id is `owner/name`, or `name` alone."""
    return not name.startswith("builtin:") and (name.startswith((".", "/", "~")) or name.count("/") > 1)


def detect_of_path(data: str, classifies: bool, chats: bool = False) -> DataFormat:
    """Return the format of local data, by their first rows; data on the hub are not read.

    :param classifies: the model is an encoder; `chats`: it has a chat template
    """
    path = Path(data).expanduser()
    try:
        if not path.exists():
            if looks_local(data) or data.lower().endswith(SUFFIXES):
                raise LoraError(f"--data {data}: there is no such file or directory.")
            return DataFormat()
        if path.is_file() and not suffix_of(path):
            raise LoraError(f"--data {data}: must be one of {', '.join(FORMATS)}, or a directory of these.")
        glue = _GLUE.get(path.resolve().name.lower()) if any(map(path.glob, ("*train.tsv", "*train.txt"))) else None
        files = data_files(path, reading=Reading(tables=glue is not None))
        if "train" not in files and len(files) > 1:
            raise LoraError(
                f"--data {data}: has {', '.join(files)}, but none is named train. Name one file, or write the spec "
                "without --data and assign the files with data.split."
            )
        rows: list[dict[str, Any]] = list(islice(read_rows(files.get("train") or next(iter(files.values()))), 50))
    except OSError as error:
        raise LoraError(f"--data {data}: cannot be read: {error.strerror or error}.") from error
    if not rows:
        raise LoraError(f"--data {data}: is empty; it has no rows.")
    if glue == "stsb" and not classifies:
        raise LoraError(
            f"--data {data}: STS-B has scores instead of classes. Pass an encoder with --model, or write a spec with "
            'model.task_type = "SEQ_CLS" and model.num_labels = 1.'
        )
    if glue is not None:
        return DataFormat(like=glue, metrics=tuple(catalogue()[glue]["about"]["metrics"]), numbers=glue == "stsb")
    layout = _classes_of(rows, data) if classifies else detect_format(rows, data, chats)
    names = tuple(str(column) for column in rows[0])
    return replace(layout, names=names, detected=layout.detected or ("classification" if classifies else ""))


def _classes_of(rows: list[dict[str, Any]], name: str) -> DataFormat:
    """Return which columns of a data set are texts and their classes.

    :raises ModelError: when none can be
    """
    columns = [str(column) for column in rows[0]]
    usable = [column for column in columns if _is_text(rows, column)]
    label = _first(usable, _CLASSES)
    numbers = label is not None and any(not (number_of(row.get(label)) or 0.0).is_integer() for row in rows)
    metrics = () if numbers else _METRICS["classification"]
    if set(usable) >= {"label"} and (set(usable) & {"text", "sentence"} or set(usable) >= {"sentence1", "sentence2"}):
        return DataFormat(metrics=metrics, numbers=numbers)
    texts = [column for column in usable if column != label]
    pair = next((pair for pair in _PAIRS if set(pair) <= set(texts)), None)
    text = _first(texts, _LABELLED) or (texts[0] if len(texts) == 1 else None)
    if label is None or not (pair or text):
        raise ModelError(
            f"--data {name}: its columns ({column_list(columns) or 'none'}) do not show which holds the text and which "
            "the class, and the model is an encoder, which classifies. Write a spec without --model and --data, and "
            'set these there: model.task_type = "SEQ_CLS", data.columns = { text = "column", label = "other column" }.'
            + header_hint(columns)
        )
    fields = {"sentence1": pair[0], "sentence2": pair[1]} if pair else {"text": text or ""}
    renamed = {field: column for field, column in {**fields, "label": label}.items() if field != column}
    return DataFormat("classification", renamed, metrics=metrics, numbers=numbers)


def detect_format(rows: list[dict[str, Any]], name: str, chats: bool = False) -> DataFormat:
    """Return how the first rows of a data set can be read.

    :param chats: whether the model has a chat template, through which `format = "auto"` puts questions
    :raises LoraError: when no column is of use
    """
    columns = [str(column) for column in rows[0]]
    if is_preference_set(columns):
        raise LoraError(f"--data {preference_set(name)}")
    usable = [column for column in columns if _is_text(rows, column)]
    others = [column for column in columns if _is_chat(rows, column) or _is_answers(rows, column)]
    try:
        detected = detect(usable + others, name)
    except NodeError:
        return _by_synonyms(rows, columns, usable, name, chats)
    try:
        for row in rows:
            check_media(row, {"format": detected, "template": None, "columns": {}})
    except NodeError as error:
        raise LoraError(f"--data {name}: {str(error).removeprefix('data: ')}.") from error
    ratings = {str(row.get(RATING)) for row in rows}
    if is_unpaired_preference_set(detected, ratings):
        start = "Write a spec without --data, and set data.path. "
        raise LoraError(f"--data {unpaired_preference_set(name, detected, ratings, start)}")
    if detected == "text" and all(_GUANACO in str(row.get("text")) for row in rows):
        return DataFormat("guanaco")
    label = _first(usable, _LABELS)
    if detected == "text" and label is not None:  # "auto" would leave the classes out
        return DataFormat("classification", {"label": label}, metrics=_METRICS["classification"])
    if detected in _METRICS:
        return DataFormat(metrics=_METRICS[detected], detected=detected)
    answer = {"alpaca": "output", "completion": "completion", "question": "answer"}.get(detected)
    return DataFormat(answer_length=None if answer is None else _length(rows, answer), detected=detected)


def _by_synonyms(
    rows: list[dict[str, Any]], columns: list[str], usable: list[str], name: str, chats: bool
) -> DataFormat:
    chat = next((column for column in columns if _is_chat(rows, column)), None)
    if chat:
        return DataFormat("chat", {"messages": chat})
    text = _first([column for column in usable if column != "label"], _LABELLED)
    if text and "label" in usable:
        return DataFormat(
            "classification", {"text": text} if text != "text" else {}, metrics=_METRICS["classification"]
        )
    answer = _first(usable, _ANSWER)
    rest = [column for column in usable if column != answer]
    instruction, question, prompt = (_first(rest, words) for words in (_INSTRUCTION, _QUESTION, _PROMPT))
    if answer and instruction:
        fields = {"instruction": instruction, "input": _first(rest, _INPUT), "output": answer}
        return _renamed("alpaca", fields, columns, _length(rows, answer))
    passage = _first(rest, _PASSAGE)
    if answer and question and passage and not _unfit((passage, question, answer)):
        template = {"prompt": f"{{{passage}}}\n\nQuestion: {{{question}}}\nAnswer:", "completion": f" {{{answer}}}"}
        return DataFormat(template=template, answer_length=_length(rows, answer))
    if answer and question:
        return _renamed("question", {"question": question, "answer": answer}, columns, _length(rows, answer))
    if answer and prompt and not chats and not _unfit((prompt, answer)):
        template = {"prompt": f"{{{prompt}}}\n", "completion": f"{{{answer}}}"}
        return DataFormat(template=template, answer_length=_length(rows, answer))
    if answer and prompt:
        return _renamed("completion", {"prompt": prompt, "completion": answer}, columns, _length(rows, answer))
    text = _first(usable, _TEXT) or (usable[0] if len(usable) == 1 and _reads_as_text(rows, usable[0]) else None)
    if text:
        return DataFormat("text", {"text": text} if text != "text" else {})
    listed = column_list(columns) or "none"
    nested = [column for column in columns if any(kind_of(row.get(column)) in NESTED for row in rows)]
    raise LoraError(
        f"--data {name}: its columns ({listed}) do not show which holds questions, answers or texts. Write a spec "
        'without --data, and set in [data]: template = { prompt = "{column}", completion = " {other column}" }'
        + (f".{hint}" if (hint := header_hint(columns) + nested_hint(nested)) else "")
    )


def _renamed(form: str, fields: dict[str, str | None], columns: list[str], length: float) -> DataFormat:
    """Return a format under the columns' own names, which `format = "auto"` finds by these wherever it can."""
    renamed = {field: column for field, column in fields.items() if column and column != field}
    auto = detect([*columns, *renamed], "") == form
    return DataFormat("" if auto else form, renamed, answer_length=length, detected=form)


def _first(columns: list[str], words: tuple[str, ...]) -> str | None:
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[word] for word in words if word in by_name), None)


def _is_text(rows: list[dict[str, Any]], column: str) -> bool:
    values = [row.get(column) for row in rows]
    return all(isinstance(value, str | int | float | None) for value in values) and any(
        value not in (None, "") for value in values
    )


def _reads_as_text(rows: list[dict[str, Any]], column: str) -> bool:
    """Return whether some value has several words, or a script without spaces: identifiers and numbers have neither."""
    values = [value for row in rows if isinstance(value := row.get(column), str)]
    return any(len(value.split()) > 1 or not value.isascii() for value in values)


def _is_chat(rows: list[dict[str, Any]], column: str) -> bool:
    """Return whether a column holds messages of `role` and `content`, or ShareGPT's of `from` and `value`."""
    turns = rows[0].get(column)
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        return False
    ours, theirs = {"role", "content"}, {"from", "value"}  # a message that calls a tool may say nothing
    return all(ours <= {*turn, *(["content"] if turn.get("tool_calls") else [])} or theirs <= {*turn} for turn in turns)


def _is_answers(rows: list[dict[str, Any]], column: str) -> bool:
    """Return whether a column holds the accepted answers of SQuAD."""
    answers = rows[0].get(column)
    return isinstance(answers, dict) and "text" in answers


def _length(rows: list[dict[str, Any]], column: str) -> float:
    return median(map(len, (_words(row.get(column)) for row in rows)))


def _words(answer: Any) -> str:
    """Return the text of an answer, which may be messages."""
    if not isinstance(answer, list):
        return str(answer or "")
    return "".join(str(turn.get("content") or "") for turn in answer if isinstance(turn, dict))


def _unfit(columns: tuple[str, ...]) -> bool:
    """Return whether a template cannot name one of these columns."""
    return any(mark in column for column in columns for mark in "{}:!")
