"""Rows to text: what a model reads, and what it should write, for each format of `[data]`. Imports no torch."""

from dataclasses import replace
from typing import Any

from lorafile.engine.data.columns import ALIASES
from lorafile.engine.data.conversations import Message, chat_example, guanaco_example
from lorafile.engine.data.example import Chat, Example, Render, Row, fill
from lorafile.engine.data.labels import label_example
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
PROMPT = "{context}\n\nQuestion: {question}\nAnswer:"
PROMPT_OR_NONE = 'If the text below does not answer the question, write "{unanswerable}".\n\n' + PROMPT
# Formats that are a template of two columns: name -> (prompt, completion).
TEMPLATES = {
    "completion": ("{prompt}", "{completion}"),
    "question": ("Question: {question}\nAnswer:", " {answer}"),
    "builtin:facts": ("question : {question} answer :", " {answer}"),
}


# Formats of one question and its answer, which a chat template can put as turns.
CONVERSABLE = ("alpaca", "completion", "question", "squad")


def renderer(data: dict[str, Any], chat: Chat) -> Render:
    """Return the function from a row to its text.

    :param data: resolved data settings: `format` (not `auto`), `template`, `columns`, and what the format has
    """
    form, columns = data["format"], data["columns"]
    if data.get("chat_template"):
        return lambda row: _through_template(named(row, columns, form), data, chat)
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
    values = {key: "" if value is None else value for key, value in row.items()}
    for field, others in ALIASES.get(form, {}).items():
        alias = next((name for name in others if name in values and name not in columns.values()), None)
        if alias is not None:
            values.setdefault(field, values[alias])
    return values | {name: values[column] for name, column in columns.items() if column in values}


def _answered(prompt: str, completion: str) -> Example:
    return Example(prompt, completion, completion)


def turns_of(row: Row, data: dict[str, Any]) -> list[Message]:
    """Return a row of one question and its answer as two turns, for a chat template.

    :param data: of a format of `CONVERSABLE`
    """
    if data["format"] == "alpaca":
        more = str(row.get("input", ""))
        asked, answer = str(row["instruction"]) + (f"\n\n{more}" if more.strip() else ""), str(row["output"])
    elif data["format"] == "squad":
        example = passage_example(row, data)
        asked, answer = example.prompt, example.completion.strip()
    else:
        fields = ("question", "answer") if data["format"] == "question" else ("prompt", "completion")
        asked, answer = (str(row[field]) for field in fields)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _through_template(row: Row, data: dict[str, Any], chat: Chat) -> Example:
    example = chat_example({"messages": turns_of(row, data)}, chat)
    about = passage_example(row, data).about if data["format"] == "squad" else {}
    return replace(example, about=about)


def _alpaca(row: Row) -> Example:
    template = ALPACA_INPUT if str(row.get("input", "")).strip() else ALPACA
    return _answered(fill(template, row), str(row["output"]))


def passage_example(row: Row, data: dict[str, Any]) -> Example:
    """Return a row of SQuAD: every accepted answer stays with it, none where the passage holds none.

    :raises NodeError: when a row has no answer and `data.unanswerable` is empty
    """
    answers = accepted(row["answers"])
    phrase = data.get("unanswerable", "")
    if not answers and not phrase:
        raise NodeError(
            'data.unanswerable: a row has no answer; say what a model should write then: unanswerable = "unanswerable".'
        )
    answer = answers[0] if answers else phrase
    default = {"prompt": PROMPT_OR_NONE if phrase else PROMPT, "completion": " {answer}"}
    written = data["template"] or default
    full = {**row, "answer": answer, "unanswerable": phrase}
    about: dict[str, Any] = {"references": answers}
    if phrase:
        about["unanswerable"] = phrase
    return Example(fill(written["prompt"], full), fill(written["completion"], full), answer, about=about)


def accepted(answers: Any) -> list[str]:
    """Return the accepted answers, each once: from `{text: [...]}`, as the hub has them, or a list of `{text}`."""
    if isinstance(answers, dict):
        answers = answers.get("text", [])
    if isinstance(answers, str):
        answers = [answers] if answers else []
    return list(dict.fromkeys(str(answer["text"] if isinstance(answer, dict) else answer) for answer in answers))
