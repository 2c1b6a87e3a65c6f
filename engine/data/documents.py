"""Raw text: documents to token ids, long ones in pieces that lose no token. Needs a tokenizer, and no torch."""

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any

from lorafile.engine.data.encode import Encoded

Piece = tuple[str, Encoded]


def pieces(tokenizer: Any, texts: list[str], limit: int) -> Iterator[list[Piece]]:
    """Yield for each document its pieces: (text whose tokens are supervised, tokens of at most the limit).

    A piece begins with the last token of the one before it, which is only read there, so that every token but a
    document's very first is predicted exactly once, however it is cut.
    """
    fast = getattr(tokenizer, "is_fast", False)
    found = tokenizer(texts, return_offsets_mapping=fast, verbose=False)
    end = tokenizer.eos_token_id
    for number, text in enumerate(texts):
        ids = list(found["input_ids"][number])
        stops = [stop for _, stop in found["offset_mapping"][number]] if fast else None
        if end is not None and (not ids or ids[-1] != end):
            ids.append(end)
            stops = [*stops, len(text)] if stops is not None else None
        yield [_piece(tokenizer, text, ids, stops, start, limit) for start in _starts(len(ids), limit)]


def _starts(count: int, limit: int) -> range:
    return range(0, max(count - 1, 1), limit - 1)


def _piece(tokenizer: Any, text: str, ids: list[int], stops: list[int] | None, start: int, limit: int) -> Piece:
    part = ids[start : start + limit]
    marks = [0] + [1] * (len(part) - 1)
    if stops is None:
        shown = str(tokenizer.decode(part[1:], skip_special_tokens=True))
    else:
        last = len(text) if start + limit >= len(ids) else stops[start + len(part) - 1]
        shown = text[stops[start] : last]
    return shown, Encoded(part, marks, 0)


def best_fit(lengths: list[int], limit: int) -> list[int]:
    """Return for each document the number of its block: longest first, each into the fullest block with room for it.

    Best fit decreasing needs at most 11/9 of the fewest possible blocks, and one more (Johnson, 1973).
    """
    rooms: list[int] = []  # the distinct rooms that are left, ascending
    blocks: dict[int, list[int]] = {}  # room -> its blocks
    found, count = [0] * len(lengths), 0
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        at = bisect_left(rooms, length)
        if at == len(rooms):
            block, room, count = count, limit, count + 1
        else:
            room = rooms[at]
            block = blocks[room].pop()
            if not blocks[room]:
                del blocks[room], rooms[at]
        found[index] = block
        if room - length not in blocks:
            blocks[room - length] = []
            insort(rooms, room - length)
        blocks[room - length].append(block)
    return found
