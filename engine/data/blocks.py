"""Texts into blocks: which of them share one, so that little of it is padding."""

from bisect import bisect_left, insort


def best_fit(lengths: list[int], limit: int) -> list[int]:
    """Return for each document the number of its block: longest first, each into the fullest block with room for it.

    Best fit decreasing needs at most 11/9 of the fewest possible blocks, and one more (Johnson, 1973).
    """
    rooms: list[int] = []  # the distinct rooms that are left, ascending
    blocks: dict[int, list[int]] = {}  # room -> its blocks
    block_of, count = [0] * len(lengths), 0
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
        block_of[index] = block
        if room - length not in blocks:
            blocks[room - length] = []
            insort(rooms, room - length)
        blocks[room - length].append(block)
    return block_of
