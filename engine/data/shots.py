"""Few-shot prompts: solved examples from the train split before each held-out one. Imports no torch."""

import random
from dataclasses import replace
from typing import Any

from lorafile.engine.data.conversations import chat_example, messages_of
from lorafile.engine.data.example import Chat, Example, Render, Row
from lorafile.engine.data.templates import named
from lorafile.errors import NodeError

_BETWEEN = "\n\n"
Numbered = tuple[int, Row]


def draw(rows: list[Numbered], count: int, seed: int) -> list[Row]:
    """Return the examples that a seed shows: of fewer and more of them, the fewer are the first.

    :raises NodeError: when the train split has not as many
    """
    if len(rows) < count:
        raise NodeError(f"none.shots: {count} examples are to be shown, and the train split has {len(rows)}.")
    order = list(rows)
    random.Random(f"shots:{seed}").shuffle(order)
    return [row for _, row in order[:count]]


def with_shots(render: Render, shown: list[Row], data: dict[str, Any], chat: Chat) -> Render:
    """Return the function from a row to its text with solved examples before it: as earlier turns, or as text.

    What is shown is never supervised.
    """
    if data["format"] == "chat":
        turns = [
            message
            for row in shown
            for message in messages_of(named(row, data["columns"], "chat")["messages"])
            if message["role"] != "system"
        ]
        return lambda row: _after_turns(row, turns, data, chat)
    before = "".join(render(row).text + _BETWEEN for row in shown)
    return lambda row: _after_text(render(row), before)


def _after_text(example: Example, before: str) -> Example:
    turns = tuple((start + len(before), end + len(before)) for start, end in example.turns)
    return replace(example, prompt=before + example.prompt, turns=turns)


def _after_turns(row: Row, turns: list[Any], data: dict[str, Any], chat: Chat) -> Example:
    messages = messages_of(named(row, data["columns"], "chat")["messages"])
    opening = next(number for number, message in enumerate(messages) if message["role"] != "system")
    example = chat_example({"messages": [*messages[:opening], *turns, *messages[opening:]]}, chat)
    answers = sum(message["role"] == "assistant" for message in turns)
    return replace(example, turns=example.turns[answers:])
