"""Prompts without an answer, in the format of the study's data: typed to `lora chat`, or held by the spec. No torch."""

from dataclasses import dataclass
from typing import Any

from lorafile.engine.data.conversations import messages_of, tools_of
from lorafile.engine.data.example import Chat, Example, Row, placeholders
from lorafile.engine.data.templates import named, renderer
from lorafile.errors import NodeError

_CONVERSATIONS = ("chat", "guanaco")
# The field of each format that a bare question stands for; what may be left empty, answers among it, is filled here.
_FIELDS = {
    "alpaca": "instruction",
    "builtin:facts": "question",
    "classification": "text",
    "completion": "prompt",
    "question": "question",
    "squad": "question",
}
_UNANSWERED: Row = {"input": "", "output": "", "answer": "", "completion": "", "answers": ["-"]}


@dataclass(frozen=True)
class Turn:
    """A question that was asked, and its answer."""

    question: str
    answer: str


def keeps_history(data: dict[str, Any]) -> bool:
    """Return whether the data are conversations, so that a question follows what was said before."""
    return not data["template"] and data["format"] in _CONVERSATIONS


def question_example(data: dict[str, Any], question: str, columns: Row, before: list[Turn], chat: Chat) -> Example:
    """Return what a model reads of a question.

    :param data: resolved data settings, as they stand in a key
    :param columns: the prompt's other columns, as a context
    :raises NodeError: when a column of the prompt has no value
    """
    form = data["format"]
    if keeps_history(data) and form == "chat":
        said = [("system", columns["system"])] if "system" in columns else []
        for turn in before:
            said += [("user", turn.question), ("assistant", turn.answer)]
        messages = [{"role": role, "content": content} for role, content in [*said, ("user", question)]]
        return Example(chat.text(messages, True, None), "", "", special=True)
    if keeps_history(data):
        history = "".join(f"### Human: {turn.question}### Assistant: {turn.answer}" for turn in before)
        return renderer(data, chat)({"text": f"{history}### Human: {question}### Assistant: -"})
    if form == "text" and not data["template"]:
        return Example(question, "", "")
    field = _field(data, columns)
    filled = dict.fromkeys(placeholders(data["template"]["completion"]) if data["template"] else (), "") | _UNANSWERED
    if form == "classification":
        filled["label"] = data["labels"][0][0]
    return renderer({**data, "columns": {}}, chat)({**filled, **columns, field: question})


def prompt_example(row: str | Row, data: dict[str, Any], chat: Chat) -> Example:
    """Return what a model reads of a prompt that the spec holds: a bare text, or a row without its answer.

    :raises NodeError: when it cannot be put into the format
    """
    form = data["format"]
    if form == "chat":
        row = {"messages": [{"role": "user", "content": row}]} if isinstance(row, str) else row
        row = named(row, data["columns"], form)
        messages = messages_of(row.get("messages"), "messages")
        return Example(chat.text(messages, True, tools_of(row)), "", "", special=True)
    if isinstance(row, str):
        if form == "guanaco":
            return Example(f"### Human: {row}\n### Assistant:", "", "")
        if data["template"] or form not in _FIELDS or form in ("classification", "squad"):
            return Example(row, "", "")
        row = {_FIELDS[form]: row}
    label = str(data["labels"][0][0]) if data.get("labels") else ""  # any: the prompt does not depend on its answer
    return renderer(data, chat)({**_UNANSWERED, "answers": [], "label": label, **row})


def _field(data: dict[str, Any], columns: Row) -> str:
    """Return the column that a question goes to: the only one of the prompt that is not filled."""
    placed = placeholders(data["template"]["prompt"]) if data["template"] else []
    ours = ("label", "unanswerable")
    if placed:
        left = [name for name in placed if name not in columns and name not in ours]
        preferred = _FIELDS.get(data["format"])
        field = preferred if preferred in left else left[0] if left else placed[-1]
        missing = [name for name in left if name != field]
    elif data["format"] == "classification" and {"sentence1", "sentence2"} & columns.keys():
        field = "sentence2" if "sentence1" in columns else "sentence1"
        missing = []
    else:
        field = _FIELDS[data["format"]]
        missing = ["context"] if data["format"] == "squad" and "context" not in columns else []
    if missing:
        raise NodeError(
            f"The prompt also needs the columns {', '.join(missing)}, besides {field}. Set them with "
            f"{' '.join(f'--column {name}=…' for name in missing)}"
        )
    return field
