"""The rows of one split as the model sees them: drawn, put into words, tokenized. Needs a tokenizer, and no torch."""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import Any

from lorafile.engine.data.conversations import chat_example
from lorafile.engine.data.encode import Encoded, chat_of, context_tokens, encode, encode_texts, most_tokens
from lorafile.engine.data.example import Chat, Example, Render, Row, cluster_of
from lorafile.engine.data.files import DataFile
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.templates import SHOTS_APART, as_conversation, is_conversation, named, renderer
from lorafile.errors import NodeError
from lorafile.units import column_list

_AT_ONCE = 256
_NO_CHAT = Chat(lambda _messages, _opens, _tools: "")
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
Numbered = tuple[int, Row]
Piece = tuple[str, Encoded]


@dataclass(frozen=True)
class Prepared:
    """One example, in words and in tokens, of whatever length.

    :ivar row: its place in the drawn order of its split's source
    :ivar size: UTF-8 bytes of the text whose tokens are supervised
    :ivar exact: digest of the text; `normal`: of its letters and digits alone, case folded
    :ivar shots: how many of its tokens are those of solved examples before it
    """

    row: int
    example: Example
    encoded: Encoded
    size: int
    exact: bytes
    normal: bytes
    shots: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write: its answer is empty."""
        return isinstance(self.example.reference, str) and not self.example.reference.strip()


@dataclass(frozen=True)
class Limits:
    """How long an example may be, in tokens.

    :ivar own: without the solved examples before it; `context`: with them, as many as the model reads
    :ivar too_long: what happens to a longer one: `error`, `drop` or `truncate`
    """

    own: int
    context: int | None
    too_long: str

    @classmethod
    def of(cls, data: dict[str, Any], model: str, tokenizer: Any, encoder: bool) -> "Limits":
        """Return the limits of a data section's examples for the model in a directory."""
        reads = most_tokens(model) or data["max_length"]
        own = min(data["max_length"], reads, tokenizer.model_max_length if encoder else reads)
        return cls(own, context_tokens(model), data["too_long"])

    def fit(self, tokenizer: Any, prepared: Prepared, encoder: bool) -> Encoded | None:
        """Return the tokens of an example as they go in; None where it is left out, for nothing of it would be learned.

        :raises NodeError: when it is too long, and may not be, or longer with its solved examples than the model reads
        """
        encoded, shots = prepared.encoded, prepared.shots
        if shots and self.context is not None and len(encoded.input_ids) - self.excess(prepared) > self.context:
            raise NodeError(
                f"none.shots: row {prepared.row} has {len(encoded.input_ids)} tokens with the solved examples before "
                f"it, but the model reads at most {self.context}. Lower none.shots."
            )
        if not self.excess(prepared):
            return encoded
        if self.too_long == "drop":
            return None
        if encoder:
            return encode_texts(tokenizer, [prepared.example], self.own)[0]
        cut = encoded.cut(shots + self.own)
        return cut if any(cut.supervised) or not any(encoded.supervised) else None

    def excess(self, prepared: Prepared) -> int:
        """Return how many tokens an example has too many, without the solved ones before it."""
        return max(len(prepared.encoded.input_ids) - prepared.shots - self.own, 0)


def split_rows(rule: dict[str, Any], files: list[DataFile], sample_by: str) -> list[Numbered]:
    """Return (row number, row) of one split: a slice of the file's rows, in file order or in a seeded order."""
    rows = list(enumerate(read_rows(files, sample_by)))
    if rule["seed"] is not None:
        random.Random(rule["seed"]).shuffle(rows)
    if "cluster" not in rule:
        return rows[rule["start"] : rule["stop"]]
    clusters: dict[str, list[Numbered]] = {}
    for number, row in rows:
        clusters.setdefault(cluster_of(row, rule["cluster"], number), []).append((number, row))
    firsts = accumulate((len(cluster) for cluster in clusters.values()), initial=0)
    whole = [c for first, c in zip(firsts, clusters.values(), strict=False) if rule["start"] <= first < rule["stop"]]
    return [numbered for cluster in whole for numbered in cluster]


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

    def tokens_of(some: list[tuple[int, Example]]) -> list[Encoded]:
        batch = [example for _, example in some]
        return encode_texts(tokenizer, batch) if encoder else encode(tokenizer, batch, data["completion_only_loss"])

    left = iter(rows)
    while numbered := list(islice(left, _AT_ONCE)):
        some = list(written(tokenizer, data, numbered, shown))
        encoded = tokens_of(some)
        own = tokens_of(list(written(tokenizer, data, numbered))) if shown else encoded
        for (number, example), tokens, alone in zip(some, encoded, own, strict=True):
            spans = example.marked or (*example.turns, (len(example.prompt), len(example.text)))
            size = sum(len(example.text[start:end].encode()) for start, end in spans)
            shots = len(tokens.input_ids) - len(alone.input_ids)
            yield Prepared(number, example, tokens, size, *digests(example.text), shots)


def written(
    tokenizer: Any, data: dict[str, Any], rows: Iterable[Numbered], shown: list[Row] | None = None
) -> Iterator[tuple[int, Example]]:
    """Yield (row number, example) of some rows, in words; the tokenizer lends its chat template."""
    chat = chat_of(tokenizer, data)
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
        raise NodeError(f"{str(error).removesuffix('.')} (row {number}).") from error
    except KeyError as error:
        why = f"has no {error}, which its format needs; its columns are: {column_list(row)}"
        raise NodeError(f"data: row {number} {why}.") from error
    except UnicodeEncodeError as error:
        why = "contains half a character (a lone surrogate), which is not valid text"
        raise NodeError(f"data: row {number} {why}.") from error
    except (TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise NodeError(f"data: row {number} does not match its format: {error}.") from error


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
        raise NodeError(f"none.shots: {count} examples are requested, but the train split has {len(rows)}.")
    order = list(rows)
    random.Random(f"shots:{seed}").shuffle(order)
    return [row for _, row in order[:count]]


def with_shots(render: Render, shown: list[Row], data: dict[str, Any], chat: Chat) -> Render:
    """Return the function from a row to its text with solved examples before it: as earlier turns, or as text.

    What is shown is never supervised.
    """
    fields = [named(row, data["columns"], data["format"]) for row in shown]
    if all(is_conversation(row, data) for row in fields):
        conversations = [as_conversation(row, data) for row in fields]
        turns = [message for c in conversations for message in c.messages if message["role"] != "system"]

        def after_turns(row: Row) -> Example:
            conversation = as_conversation(named(row, data["columns"], data["format"]), data).after(turns)
            return replace(chat_example(conversation, chat), about=render(row).about)

        return after_turns
    before = "".join(render(row).text + SHOTS_APART for row in shown)

    def after_text(row: Row) -> Example:
        example = render(row)
        turns = tuple((start + len(before), end + len(before)) for start, end in example.turns)
        return replace(example, prompt=before + example.prompt, turns=turns)

    return after_text


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
