"""Conversations as text: every turn of the assistant is an answer, and all else is what it answers. No torch."""

import re
from typing import Any

from lorafile.engine.data.example import Chat, Example, Row
from lorafile.errors import NodeError

# ShareGPT's names for who speaks, and the others that its sets use.
_SPEAKERS = dict.fromkeys(("human", "user"), "user")
_SPEAKERS |= dict.fromkeys(("gpt", "chatgpt", "assistant", "model"), "assistant") | {"system": "system"}
GUANACO = "### Human:"
_GUANACO = re.compile(r"### (Human|Assistant):")
Message = dict[str, Any]


def messages_of(turns: Any) -> list[Message]:
    """Return a row's messages as {role, content}, ShareGPT's {from, value} among them, up to the last answer.

    What follows the last answer was never answered, and an answer before the first question answers nothing; both are
    left out.

    :raises NodeError: when there is no answer in it
    """
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise NodeError("data: a chat row needs `messages`, a list of {role, content} or of {from, value}.")
    messages = [_message(turn) for turn in turns]
    while messages and messages[0]["role"] == "assistant":
        messages = messages[1:]
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        raise NodeError("data: a chat row has no turn of the assistant that answers something.")
    return messages[: answers[-1] + 1]


def _message(turn: Message) -> Message:
    if "role" in turn:
        return turn
    speaker = str(turn.get("from", ""))
    if speaker.lower() not in _SPEAKERS:
        raise NodeError(f'data: a turn of a conversation is from "{speaker}"; known are: {", ".join(_SPEAKERS)}.')
    return {"role": _SPEAKERS[speaker.lower()], "content": str(turn.get("value", ""))}


def chat_example(row: Row, chat: Chat) -> Example:
    """Return a conversation through the tokenizer's template: the last answer, and the earlier ones inside the prompt.

    :raises NodeError: when the template writes a turn otherwise once another follows, so that the places of the
        answers are unknown
    """
    messages = messages_of(row["messages"])
    prompt, whole = chat.text(messages[:-1], True), chat.text(messages, False)
    if not whole.startswith(prompt):
        raise NodeError("data: the tokenizer's chat template does not open the assistant's turn as it writes it.")
    marked = chat.marked(messages)
    earlier = _earlier(messages, whole, chat) if marked is None else marked
    turns = tuple((start, end) for start, end in earlier if end <= len(prompt))
    return Example(prompt, whole[len(prompt) :], str(messages[-1]["content"]), special=True, turns=turns)


def _earlier(messages: list[Message], whole: str, chat: Chat) -> list[tuple[int, int]]:
    """Return where the earlier answers stand, by rendering the conversation up to each of them."""
    answers = []
    for number, message in enumerate(messages[:-1]):
        if message["role"] != "assistant":
            continue
        before, through = chat.text(messages[:number], True), chat.text(messages[: number + 1], False)
        if not (whole.startswith(through) and through.startswith(before)):
            raise NodeError(
                "data: the tokenizer's chat template writes an answer otherwise once more turns follow, and marks none "
                "with {% generation %}, so that the supervised tokens cannot be told. Use a template that does, or "
                "rows of one answer each."
            )
        answers.append((len(before), len(through)))
    return answers


def guanaco_example(row: Row) -> Example:
    """Return a row in openassistant-guanaco's layout: `### Human: … ### Assistant: …` in one column, as it stands.

    :raises NodeError: when it holds no answer
    """
    text = str(row["text"])
    marks = list(_GUANACO.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)] * bool(marks)
    answers = [(mark.end(), end) for mark, end in zip(marks, ends, strict=True) if mark[1] == "Assistant"]
    if not answers or marks[0][1] == "Assistant":
        raise NodeError("data: a row of the guanaco format needs `### Human:` and then `### Assistant:` in its text.")
    start, end = answers[-1]
    return Example(text[:start], text[start:end], text[start:end].strip(), turns=tuple(answers[:-1]))
