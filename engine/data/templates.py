"""Rows to text: what a model reads, and what it should write, for each format of `[data]`. Imports no torch."""

import re
from dataclasses import replace
from typing import Any

from lorafile.engine.data.columns import ALIASES
from lorafile.engine.data.conversations import GUANACO, Conversation, chat_example, conversation_of, guanaco_example
from lorafile.engine.data.example import (
    Chat,
    Example,
    Render,
    Row,
    fill,
    is_missing,
    literal_beginning,
    placeholders,
    text_of,
)
from lorafile.engine.data.labels import PROMPTS, label_example
from lorafile.errors import NodeError

ALPACA_BEGINS = "Below is an instruction that describes a task"
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


_MEDIA = ("image", "images", "video", "videos", "audio", "audios")  # columns that a prompt may be about
SHOTS_APART = "\n\n"  # between the solved examples of a prompt
# Formats of one question and its answer, which a chat template can put as turns.
CONVERSABLE = ("alpaca", "completion", "question", "squad")


def next_shot(data: dict[str, Any]) -> list[str]:
    """Return with what another solved example would begin: a blank line, and the line that every prompt begins with.

    A prompt that begins with a column has the blank line alone; turns in guanaco's layout follow each other without.
    """
    written = data["template"]
    if data["format"] == "guanaco" and not written:
        return [GUANACO]
    prompts: dict[str, tuple[str, ...]] = {
        "alpaca": (ALPACA_BEGINS,),
        "classification": PROMPTS,
        "squad": (PROMPT_OR_NONE if data.get("unanswerable") else PROMPT,),
    }
    form = data["format"]
    begins = (written["prompt"],) if written else prompts.get(form) or (TEMPLATES[form][0],)
    lines = (literal_beginning(prompt).lstrip("\n").partition("\n")[0].rstrip() for prompt in begins)
    return [SHOTS_APART + line for line in dict.fromkeys(lines)]


def renderer(data: dict[str, Any], chat: Chat) -> Render:
    """Return the function from a row to its text.

    :param data: resolved data settings: `format` (not `auto`), `template`, `columns`, and what the format has
    """
    form, columns = data["format"], data["columns"]
    readers: dict[str, Render] = {
        "alpaca": _alpaca,
        "classification": lambda row: label_example(row, data),
        "guanaco": guanaco_example,
        "squad": lambda row: passage_example(row, data),
        "text": lambda row: _answered("", text_of(row, "text")),
    }
    if form in readers:
        read = readers[form]
    else:
        written = data["template"]
        prompt, completion = (written["prompt"], written["completion"]) if written else TEMPLATES.get(form, ("", ""))
        answers = placeholders(completion)
        read = lambda row: _answered(fill(prompt, row), fill(completion, row, answers))  # noqa: E731

    def render(row: Row) -> Example:
        row = named(row, columns, form)
        check_media(row, data)
        return _through_template(row, data, chat) if is_conversation(row, data) else read(row)

    return render


def check_media(row: Row, data: dict[str, Any]) -> None:
    """Refuse a row that asks about more than text. A template, and what the spec assigns, says what is read.

    :raises NodeError: naming the column
    """
    if data["template"] or data["format"] in ("classification", "text"):
        return
    columns = [name for name in _MEDIA if name not in data["columns"].values()]
    held = next((name for name in columns if not is_missing(row.get(name)) and row[name] not in ("", [], {})), None)
    if held is not None:
        raise NodeError(
            f'data: the column "{held}" is not empty, but only text is supported; to train on the text alone, remove '
            "such rows or the column from the data"
        )


def is_conversation(row: Row, data: dict[str, Any]) -> bool:
    """Return whether a row goes through the chat template: by its format, or because it holds messages."""
    messages = data["format"] == "completion" and not data["template"] and isinstance(row.get("prompt"), list)
    return data["format"] == "chat" or bool(data.get("chat_template")) or messages


def named(row: Row, columns: dict[str, str], form: str) -> Row:
    """Return a row under the names of its format's fields, as the spec or the published layouts call them."""
    values = dict(row)
    for field, others in ALIASES.get(form, {}).items():
        alias = next((name for name in others if name in values and name not in columns.values()), None)
        if alias is not None:
            values.setdefault(field, values[alias])
    return values | {name: values[column] for name, column in columns.items() if column in values}


def _answered(prompt: str, completion: str) -> Example:
    return Example(prompt, completion, completion)


def as_conversation(row: Row, data: dict[str, Any]) -> Conversation:
    """Return a row as turns, for a chat template; a question and its answer are two.

    :param row: under the names of its format's fields
    :raises NodeError: when its messages are none, or nothing is answered
    """
    form = data["format"]
    if form == "chat":
        return conversation_of(_more(row, data, ("tools", "system", "history")), row["messages"])
    if form == "completion" and isinstance(row["prompt"], list):
        more = _more(row, data, ("tools", "system", "history"))
        return conversation_of(more, row["prompt"], row["completion"])
    if form == "alpaca":
        evidence, answer = _input(row), text_of(row, "output", True)
        asked = text_of(row, "instruction") + (f"\n\n{evidence}" if evidence.strip() else "")
    elif form == "squad":
        example = passage_example(row, data)
        asked, answer = example.prompt, example.completion.strip()
    else:
        question, field = ("question", "answer") if form == "question" else ("prompt", "completion")
        asked, answer = text_of(row, question), text_of(row, field, True)
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return conversation_of(_more(row, data, ("system", "history") if form == "alpaca" else ()), turns)


def _more(row: Row, data: dict[str, Any], known: tuple[str, ...]) -> Row:
    """Return what else of a row belongs to a conversation: columns that the layout has so, or that the spec names."""
    return {
        name: row[name] for name in ("tools", "system", "history") if name in row and name in (*known, *data["columns"])
    }


def _through_template(row: Row, data: dict[str, Any], chat: Chat) -> Example:
    example = chat_example(as_conversation(row, data), chat)
    about = passage_example(row, data).about if data["format"] == "squad" else {}
    return replace(example, about=example.about | about)


def _input(row: Row) -> str:
    return text_of(row, "input", True) if "input" in row else ""


def _alpaca(row: Row) -> Example:
    template = ALPACA_INPUT if _input(row).strip() else ALPACA
    return _answered(fill(template, row), text_of(row, "output", True))


def passage_example(row: Row, data: dict[str, Any]) -> Example:
    """Return a row of SQuAD: every accepted answer stays with it, none where the passage holds none.

    :raises NodeError: when a row has no answer and `data.unanswerable` is empty
    """
    answers = accepted(row["answers"])
    phrase = data.get("unanswerable", "")
    if not answers and not phrase:
        raise NodeError(
            'data.unanswerable: a row has no answer; set the answer to give then: unanswerable = "unanswerable".'
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
    """Return the accepted answers, each once: from `{text: [...]}`, as the hub has them, or a list of `{text}`.

    :raises NodeError: when they are the text of such an object, which a table holds where it was not meant for lists
    """
    if isinstance(answers, dict):
        answers = answers.get("text")
    if isinstance(answers, str):
        if re.match(r"\s*[\[{]", answers):
            raise NodeError(
                f'data: the column "answers" contains an object as text ({answers.strip()[:40]}…), as in a '
                "CSV made from SQuAD; use the data as JSON lines or Parquet"
            )
        answers = [answers] if answers else []
    if is_missing(answers):
        return []
    rows = [answer if isinstance(answer, dict) else {"text": answer} for answer in answers]
    return list(dict.fromkeys(text_of(row, "text") for row in rows))
