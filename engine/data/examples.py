"""The rows of one split as the model sees them: drawn, put into words, tokenized. Needs a tokenizer, and no torch."""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lorafile.engine.data.documents import pieces
from lorafile.engine.data.encode import Encoded, chat_of, encode
from lorafile.engine.data.example import Chat, Example, Row
from lorafile.engine.data.readers import read_rows
from lorafile.engine.data.shots import draw, with_shots
from lorafile.engine.data.templates import renderer
from lorafile.errors import NodeError

_AT_ONCE = 256
_NO_CHAT = Chat(lambda _messages, _opens: "")
_NEITHER = re.compile(r"[\W_]+")
Numbered = tuple[int, Row]


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


def split_rows(rule: dict[str, Any], files: list[Path], sample_by: str = "auto") -> list[Numbered]:
    """Return (row number, row) of one split: a slice of the file's rows, in file order or in a seeded order."""
    rows = list(enumerate(read_rows(files, sample_by)))
    if rule["seed"] is not None:
        random.Random(rule["seed"]).shuffle(rows)
    return rows[rule["start"] : rule["stop"]]


def shown_rows(data: dict[str, Any], files: list[Path]) -> list[Row]:
    """Return the solved examples that stand in every prompt, where the data section asks for any.

    :param files: of the data's own split from which they are drawn
    """
    shots = data.get("shots")
    if shots is None:
        return []
    return draw(split_rows(shots["rows"], files, data.get("sample_by", "auto")), shots["count"], shots["seed"])


def examples(
    tokenizer: Any, data: dict[str, Any], rows: Iterable[Numbered], shown: list[Row] | None = None
) -> Iterator[Prepared]:
    """Yield the examples of some rows.

    :param shown: solved examples that stand before each
    :raises NodeError: naming the row that cannot be read as its format says
    """
    if data["format"] == "text":
        yield from _documents(tokenizer, data, rows)
        return
    texts = written(tokenizer, data, rows, shown)
    while some := list(islice(texts, _AT_ONCE)):
        encoded = encode(tokenizer, [example for _, example in some], data["completion_only_loss"])
        for (number, example), tokens in zip(some, encoded, strict=True):
            yield Prepared(number, example, tokens, supervised_bytes(example), *digests(example.text))


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


def _rendered(render: Any, number: int, row: Row) -> Example:
    try:
        found: Example = render(row)
        found.text.encode()
        return found
    except NodeError as error:
        raise NodeError(f"{error} (row {number})") from error
    except KeyError as error:
        columns = ", ".join(map(str, row))
        raise NodeError(
            f"data: row {number} has no {error}, as its format needs; its columns are: {columns}."
        ) from error
    except UnicodeEncodeError as error:
        raise NodeError(
            f"data: row {number} holds half of a character (a lone surrogate), which no text has."
        ) from error
    except (TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise NodeError(f"data: row {number} is not as its format needs it: {error}.") from error


def supervised_bytes(example: Example) -> int:
    """Return the UTF-8 bytes of an example's answers."""
    return sum(len(part.encode()) for part in (example.completion, *(example.prompt[a:b] for a, b in example.turns)))


def digests(text: str) -> tuple[bytes, bytes]:
    """Return eight bytes that tell a text, and eight that tell it but for case, white space and punctuation."""
    return _digest(text), _digest(_NEITHER.sub(" ", text.casefold()).strip())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
