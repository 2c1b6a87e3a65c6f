"""The rows of one split as the model sees them: drawn, put into words, tokenized. Needs a tokenizer, and no torch."""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from lorafile.engine.data.conversations import Message, chat_example, messages_of
from lorafile.engine.data.encode import Encoded, chat_of, encode, encode_texts
from lorafile.engine.data.example import Chat, Example, Render, Row
from lorafile.engine.data.files import DataFile
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.templates import named, renderer, turns_of
from lorafile.errors import NodeError

_AT_ONCE = 256
_NO_CHAT = Chat(lambda _messages, _opens: "")
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
Numbered = tuple[int, Row]
Piece = tuple[str, Encoded]


@dataclass(frozen=True)
class Prepared:
    """One example, in words and in tokens, of whatever length.

    :ivar row: its place in the drawn order of its split's source
    :ivar size: UTF-8 bytes of the text whose tokens are supervised
    :ivar exact: digest of the text; `normal`: of its letters and digits alone, case folded
    """

    row: int
    example: Example
    encoded: Encoded
    size: int
    exact: bytes
    normal: bytes


def split_rows(rule: dict[str, Any], files: list[DataFile], sample_by: str) -> list[Numbered]:
    """Return (row number, row) of one split: a slice of the file's rows, in file order or in a seeded order."""
    rows = list(enumerate(read_rows(files, sample_by)))
    if rule["seed"] is not None:
        random.Random(rule["seed"]).shuffle(rows)
    return rows[rule["start"] : rule["stop"]]


def shown_rows(data: dict[str, Any], files: list[DataFile]) -> list[Row]:
    """Return the solved examples that stand in every prompt, where the data section asks for any.

    :param files: of the data's own split from which they are drawn
    """
    shots = data.get("shots")
    if shots is None:
        return []
    return draw(split_rows(shots["rows"], files, data.get("sample_by", "auto")), shots["count"], shots["seed"])


def examples(
    tokenizer: Any,
    data: dict[str, Any],
    rows: Iterable[Numbered],
    shown: list[Row] | None = None,
    encoder: bool = False,
) -> Iterator[Prepared]:
    """Yield the examples of some rows.

    :param shown: solved examples that stand before each
    :param encoder: the model is one, which reads the text alone
    :raises NodeError: naming the row that cannot be read as its format says
    """
    if data["format"] == "text":
        yield from _documents(tokenizer, data, rows)
        return
    texts = written(tokenizer, data, rows, shown)
    while some := list(islice(texts, _AT_ONCE)):
        batch = [example for _, example in some]
        encoded = encode_texts(tokenizer, batch) if encoder else encode(tokenizer, batch, data["completion_only_loss"])
        for (number, example), tokens in zip(some, encoded, strict=True):
            answers = (example.completion, *(example.prompt[start:end] for start, end in example.turns))
            size = sum(len(answer.encode()) for answer in answers)
            yield Prepared(number, example, tokens, size, *digests(example.text))


def written(
    tokenizer: Any, data: dict[str, Any], rows: Iterable[Numbered], shown: list[Row] | None = None
) -> Iterator[tuple[int, Example]]:
    """Yield (row number, example) of some rows, in words; the tokenizer lends its chat template."""
    chat = chat_of(tokenizer)
    render = renderer(data, chat)
    if shown:
        render = with_shots(render, shown, data, chat)
    for number, row in rows:
        yield number, _rendered(render, number, row)


def _documents(tokenizer: Any, data: dict[str, Any], rows: Iterable[Numbered]) -> Iterator[Prepared]:
    """Yield the documents of a raw text, a long one in several pieces under one row."""
    left = iter(rows)
    while some := list(islice(left, _AT_ONCE)):
        texts = [_rendered(renderer(data, _NO_CHAT), number, row).text for number, row in some]
        for (number, _), parts in zip(some, pieces(tokenizer, texts, data["max_length"]), strict=True):
            for text, encoded in parts:
                yield Prepared(number, Example("", text, text), encoded, len(text.encode()), *digests(text))


def _rendered(render: Render, number: int, row: Row) -> Example:
    try:
        example = render(row)
        example.text.encode()
        return example
    except NodeError as error:
        raise NodeError(f"{error} (row {number})") from error
    except KeyError as error:
        why = f"has no {error}, as its format needs; its columns are: {', '.join(map(str, row))}"
        raise NodeError(f"data: row {number} {why}.") from error
    except UnicodeEncodeError as error:
        why = "holds half of a character (a lone surrogate), which no text has"
        raise NodeError(f"data: row {number} {why}.") from error
    except (TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise NodeError(f"data: row {number} is not as its format needs it: {error}.") from error


def digests(text: str) -> tuple[bytes, bytes]:
    """Return digests of eight bytes: of a text, and of the text without case, white space and punctuation."""

    def digest(text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()

    return digest(text), digest(_NOT_ALPHANUMERIC.sub(" ", text.casefold()).strip())


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
    if data["format"] == "chat" or data.get("chat_template"):
        turns = [message for row in shown for message in _messages(row, data) if message["role"] != "system"]
        return lambda row: _after_turns(row, turns, data, chat)
    before = "".join(f"{render(row).text}\n\n" for row in shown)

    def after_text(row: Row) -> Example:
        example = render(row)
        turns = tuple((start + len(before), end + len(before)) for start, end in example.turns)
        return replace(example, prompt=before + example.prompt, turns=turns)

    return after_text


def _messages(row: Row, data: dict[str, Any]) -> list[Message]:
    values = named(row, data["columns"], data["format"])
    return messages_of(values["messages"] if data["format"] == "chat" else turns_of(values, data))


def _after_turns(row: Row, turns: list[Any], data: dict[str, Any], chat: Chat) -> Example:
    messages = _messages(row, data)
    opening = next(number for number, message in enumerate(messages) if message["role"] != "system")
    example = chat_example({"messages": [*messages[:opening], *turns, *messages[opening:]]}, chat)
    answers = sum(message["role"] == "assistant" for message in turns)
    return replace(example, turns=example.turns[answers:], about=renderer(data, chat)(row).about)


def pieces(tokenizer: Any, texts: list[str], limit: int) -> Iterator[list[Piece]]:
    """Yield for each document its pieces: (text whose tokens are supervised, tokens of at most the limit).

    A piece begins with the last token of the one before it, which is only read there, so that every token but a
    document's very first is predicted exactly once, however it is cut.
    """
    fast = getattr(tokenizer, "is_fast", False)
    encoded = tokenizer(texts, return_offsets_mapping=fast, verbose=False)
    end = tokenizer.eos_token_id
    for number, text in enumerate(texts):
        ids = list(encoded["input_ids"][number])
        stops = [stop for _, stop in encoded["offset_mapping"][number]] if fast else None
        if end is not None and (not ids or ids[-1] != end):
            ids.append(end)
            stops = [*stops, len(text)] if stops is not None else None
        starts = range(0, max(len(ids) - 1, 1), limit - 1)
        yield [_piece(tokenizer, text, ids, stops, start, limit) for start in starts]


def _piece(tokenizer: Any, text: str, ids: list[int], stops: list[int] | None, start: int, limit: int) -> Piece:
    part = ids[start : start + limit]
    marks = [0] + [1] * (len(part) - 1)
    if stops is None:
        shown = str(tokenizer.decode(part[1:], skip_special_tokens=True))
    else:
        last = len(text) if start + limit >= len(ids) else stops[start + len(part) - 1]
        shown = text[stops[start] : last]
    return shown, Encoded(part, marks, 0)
