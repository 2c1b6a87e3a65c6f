"""Conversations as text: every turn of the assistant is an answer, and all else is what it answers. No torch."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from lorafile.engine.data.example import Chat, Example, Row, Spans, is_missing, text_of
from lorafile.errors import NodeError

# ShareGPT's names for who speaks, and the others that its sets use.
_SPEAKERS = dict.fromkeys(("human", "user"), "user")
_SPEAKERS |= dict.fromkeys(("gpt", "chatgpt", "assistant", "model", "function_call"), "assistant")
_SPEAKERS |= dict.fromkeys(("observation", "tool", "function_response"), "tool") | {"system": "system"}
_CALL = "function_call"  # whose value is {name, arguments} as JSON
_CALLS = "tool_calls"
_REASONING = ("reasoning_content", "reasoning", "thinking")  # what an answer's reasoning is called in messages
GUANACO = "### Human:"
_GUANACO = re.compile(r"### (Human|Assistant):")
_OTHER_TEMPLATE = "set another one with data.chat_template, or use rows with a single answer"
Message = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages up to the last answer that is supervised.

    :ivar supervised: for each message whether it is an answer to be learned
    :ivar tools: what the assistant may call, as a chat template takes it
    """

    messages: list[Message]
    supervised: list[bool]
    tools: list[Any] | None = None

    def after(self, turns: list[Message]) -> "Conversation":
        """Return it with turns before its first one that are not learned: the solved examples of a prompt."""
        opening = next(number for number, message in enumerate(self.messages) if message["role"] != "system")
        return replace(
            self,
            messages=[*self.messages[:opening], *turns, *self.messages[opening:]],
            supervised=[*self.supervised[:opening], *(False for _ in turns), *self.supervised[opening:]],
        )


def conversation_of(row: Row, turns: Any, completion: Any = None) -> Conversation:
    """Return the conversation of some turns, with a row's `tools`, `system` and `history`.

    What follows the last supervised answer teaches nothing, and an answer before the first question answers nothing;
    both are left out. A turn of `weight` 0, or with `train` false, is read and not learned.

    :param turns: messages as {role, content}, or as ShareGPT has them, {from, value}
    :param completion: the messages that follow; then those alone are supervised
    :raises NodeError: when there is no answer in it, or a turn is none
    """
    messages = [*_history(row), *messages_of(turns, "messages" if completion is None else "prompt")]
    first = len(messages) if completion is not None else 0
    messages += messages_of(completion, "completion") if completion is not None else []
    supervised = [
        number >= first and message["role"] == "assistant" and _is_learned(message)
        for number, message in enumerate(messages)
    ]
    while messages and messages[0]["role"] == "assistant":
        messages, supervised = messages[1:], supervised[1:]
    if "system" in row and not is_missing(row["system"]) and (not messages or messages[0]["role"] != "system"):
        text = text_of(row, "system")
        messages = [{"role": "system", "content": text}, *messages] if text else messages
        supervised = [False] * (len(messages) - len(supervised)) + supervised
    if not any(supervised):
        raise NodeError("data: a row has no assistant turn to train on")
    end = max(number for number, learned in enumerate(supervised) if learned) + 1
    return Conversation([_clean(message) for message in messages[:end]], supervised[:end], tools_of(row))


def messages_of(turns: Any, column: str) -> list[Message]:
    """Return the messages of a column as {role, content} and whatever else they have for a chat template.

    :raises NodeError: when they are none
    """
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise NodeError(
            f'data: the column "{column}" must contain a list of messages, {{role, content}} or {{from, value}}'
        )
    return [_message(turn) for turn in turns]


def _message(turn: Message) -> Message:
    """Return a turn as {role, content} and whatever else it has for the template."""
    calls = bool(turn.get("tool_calls"))
    turn = {k: v for k, v in turn.items() if v is not None or (k in ("content", "value") and not calls)}
    if "role" in turn:
        if not isinstance(turn["role"], str):
            raise NodeError("data: a message has a role that is not text")
        return turn | _content(turn, "content") if "content" in turn else turn
    speaker = str(turn.get("from", ""))
    role = _SPEAKERS.get(speaker.lower())
    if role is None or "value" not in turn:
        why = f'is from "{speaker}"; known roles: {", ".join(_SPEAKERS)}' if role is None else "has no value"
        raise NodeError(f"data: a turn of a conversation {why}")
    rest = {name: value for name, value in turn.items() if name not in ("from", "value")}
    if speaker.lower() == _CALL:
        return {"role": role, "content": "", "tool_calls": _calls(text_of(turn, "value")), **rest}
    return {"role": role, "content": _content(turn, "value")["value"], **rest}


def _content(turn: Message, name: str) -> Message:
    """Return a turn's content as text: of OpenAI's parts those of text, joined."""
    value = turn[name]
    if isinstance(value, list):
        kinds = [part.get("type") if isinstance(part, dict) else type(part).__name__ for part in value]
        other = next((kind for kind in kinds if kind != "text"), None)
        if other is not None:
            raise NodeError(f'data: a message has a part of type "{other}", but only text is supported')
        without = next((part for part in value if "text" not in part), None)
        if without is not None:
            raise NodeError(f'data: a part of a message has no "text"; it has: {", ".join(without)}')
        return {name: "".join(text_of(part, "text") for part in value)}
    return {name: text_of(turn, name, True)}


def _calls(value: str) -> list[Any]:
    try:
        calls = json.loads(value)
    except ValueError as error:
        raise NodeError(f"data: a turn from {_CALL} is not valid JSON: {error}") from error
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and "name" in call for call in calls):
        raise NodeError(f"data: a turn from {_CALL} must contain {{name, arguments}} as JSON")
    return [{"type": "function", "function": call} for call in calls]


def _is_learned(message: Message) -> bool:
    """Return whether a turn is in the loss: `weight` as OpenAI and Mistral have it, `train` as axolotl has it."""
    weight, train = message.get("weight", 1), message.get("train", True)
    if weight not in (0, 1) or not isinstance(train, bool):
        name, value = ("weight", weight) if weight not in (0, 1) else ("train", train)
        raise NodeError(
            f"data: a message has {name} = {json.dumps(value, default=str)}; use 1 to train on a turn, or 0 to skip it"
        )
    return bool(weight) and train


def _clean(message: Message) -> Message:
    return {name: value for name, value in message.items() if name not in ("weight", "train")}


def _history(row: Row) -> list[Message]:
    """Return the earlier turns that a row keeps in a column of their own: pairs of a question and its answer."""
    pairs = row.get("history")
    if is_missing(pairs):
        return []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise NodeError('data: the column "history" must contain a list of [question, answer]')
    turns = [turn for pair in pairs for turn in zip(("user", "assistant"), pair, strict=True)]
    return [{"role": role, "content": text_of({"history": text}, "history")} for role, text in turns]


def tools_of(row: Row) -> list[Any] | None:
    """Return a row's tools, also those that are written as JSON; what Parquet fills in with null is left out."""
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise NodeError(f'data: the column "tools" is not valid JSON: {error}') from error
    if is_missing(tools) or tools in ("", []):
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise NodeError('data: the column "tools" must contain a list of functions, each an object')
    return [_without_nulls(tool) for tool in tools]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inside) for name, inside in value.items() if inside is not None}
    return [_without_nulls(inside) for inside in value] if isinstance(value, list) else value


def chat_example(conversation: Conversation, chat: Chat) -> Example:
    """Return a conversation through a chat template: the last answer, and the earlier ones inside the prompt.

    Its reference is what the template writes as the last answer, without special tokens.

    :raises NodeError: when the template writes a turn otherwise once another follows, so that the places of the
        answers are unknown, or when it leaves out the tools, a call of one, or the reasoning of the last answer
    """
    messages, tools = conversation.messages, conversation.tools
    prompt, whole = chat.text(messages[:-1], True, tools), chat.text(messages, False, tools)
    if not whole.startswith(prompt):
        raise NodeError(
            f"data: the chat template opens the assistant's turn differently in a prompt; {_OTHER_TEMPLATE}"
        )
    if tools and chat.text(messages, False, None) == whole:
        raise NodeError("data: the chat template does not support tools; set one that does with data.chat_template")
    _check_written(messages, tools, whole, chat)
    marked = chat.marked(messages, tools)
    if marked is None:
        turns = _earlier(conversation, whole, chat)
        answer = whole[len(prompt) :]
    else:
        turns, marked = (), _supervised(conversation, marked, chat)
        answer = "".join(whole[max(start, len(prompt)) : end] for start, end in marked if end > len(prompt))
    about = {"reasoning": chat.reasoning} if chat.reasoning else {}
    return Example(
        prompt,
        whole[len(prompt) :],
        chat.visible(answer).strip(),
        special=True,
        turns=turns,
        marked=marked,
        about=about,
    )


def _check_written(messages: list[Message], tools: list[Any] | None, whole: str, chat: Chat) -> None:
    """Refuse a template that leaves out calls, or what the last answer reasons; earlier reasoning many leave out.

    :raises NodeError: naming what is left out
    """
    for name, first in ((_CALLS, 0), *((name, len(messages) - 1) for name in _REASONING)):
        if any(message.get(name) for message in messages[first:]):
            without = [
                {"content": ""} | {k: v for k, v in message.items() if k != name} for message in messages[first:]
            ]
            if chat.text([*messages[:first], *without], False, tools) == whole:
                raise NodeError(
                    f"data: the chat template leaves out {name} of an assistant's message; set one that writes it with "
                    "data.chat_template, or remove the field from the rows"
                )


def _earlier(conversation: Conversation, whole: str, chat: Chat) -> Spans:
    """Return where the earlier answers stand, by rendering the conversation up to each of them."""
    answers, messages, tools = [], conversation.messages, conversation.tools
    for number, learned in enumerate(conversation.supervised[:-1]):
        if not learned:
            continue
        before, through = chat.text(messages[:number], True, tools), chat.text(messages[: number + 1], False, tools)
        if not (whole.startswith(through) and through.startswith(before)):
            raise NodeError(
                "data: the chat template writes an answer differently when more turns follow, and does not mark "
                f"answers with {{% generation %}}, so the supervised tokens cannot be determined; {_OTHER_TEMPLATE}"
            )
        answers.append((len(before), len(through)))
    return tuple(answers)


def _supervised(conversation: Conversation, marked: Spans, chat: Chat) -> Spans:
    """Return those marks that are in turns to be learned.

    :raises NodeError: when there are none
    """
    answers = [n for n, message in enumerate(conversation.messages) if message["role"] == "assistant"]
    if all(conversation.supervised[number] for number in answers):
        learned = marked
    else:
        learned, first = (), 0
        for number in answers:
            count = len(chat.marked(conversation.messages[: number + 1], conversation.tools) or ())
            learned += marked[first:count] if conversation.supervised[number] else ()
            first = count
    if not any(end > start for start, end in learned):
        raise NodeError("data: the chat template marks no part of an answer with {% generation %}")
    return learned


def guanaco_example(row: Row) -> Example:
    """Return a row in openassistant-guanaco's layout: `### Human: … ### Assistant: …` in one column, as it stands.

    :raises NodeError: when it holds no answer
    """
    text = text_of(row, "text")
    marks = list(_GUANACO.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)] * bool(marks)
    answers = [(mark.end(), end) for mark, end in zip(marks, ends, strict=True) if mark[1] == "Assistant"]
    if not answers or marks[0][1] == "Assistant":
        raise NodeError("data: a row of the guanaco format needs `### Human:` and then `### Assistant:` in its text")
    start, end = answers[-1]
    return Example(text[:start], text[start:end], text[start:end].strip(), turns=tuple(answers[:-1]))
