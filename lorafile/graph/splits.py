"""Which rows of a data set are for training, for choosing, and for the final figures."""

import re
from dataclasses import dataclass

from lorafile.specs.tables.data import SplitTable

DEFAULT_SHARE = {"test": 0.1, "validation": 0.1}
_SLICE = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Rows:
    """A slice of the rows of one of the data's own splits; with a seed, of those rows in a seeded order."""

    source: str
    seed: int | None
    start: int
    stop: int

    @property
    def count(self) -> int:
        """How many rows these are."""
        return self.stop - self.start


def draw(table: SplitTable, seed: int, available: dict[str, int]) -> dict[str, Rows]:
    """Return split -> its rows.

    A name or slice takes rows in file order. A count or a fraction takes them in a seeded order from the split
    of that name, or else from a pool (its `train` split, or its only one); from the pool test draws first, then
    validation, then train, so that a larger train split never moves the held-out examples.

    :raises ValueError: when a split asks for what is not there, or two splits share rows
    """
    wanted = {name: getattr(table, name) for name in ("test", "validation", "train")}
    pool = "train" if "train" in available else next(iter(available))
    splits: dict[str, Rows] = {}
    used = 0
    for name, size in wanted.items():
        size = _default(name, size, wanted, available)
        if size is None:
            continue
        if isinstance(size, str):
            splits[name] = _slice(name, size, available)
            continue
        source = name if name in available else pool
        start = used if source == pool else 0
        stop = start + _count(name, size, available[source], start)
        used = stop if source == pool else used
        splits[name] = Rows(source, seed, start, stop)
    _check_apart(splits)
    return {name: splits[name] for name in ("train", "validation", "test") if name in splits}


def _default(
    name: str, size: int | float | str | None, wanted: dict[str, object], available: dict[str, int]
) -> int | float | str | None:
    """Return what a split is where the spec does not say: the data's own, or a share of the pool."""
    if size is not None:
        return size
    if name == "train":
        if any(isinstance(other, str) for other in wanted.values()):
            return None  # who slices by hand says what is left for training, too
        drawn = any(wanted.values()) or not {"validation", "test"} <= available.keys()
        return 1.0 if drawn else "train"
    if name in available:
        return name
    return None if any(wanted.values()) else DEFAULT_SHARE[name]


def _count(name: str, size: int | float, rows: int, start: int) -> int:
    left = rows - start
    if name == "train" and size == 1.0 and isinstance(size, float):
        return left
    count = size if isinstance(size, int) else max(1, round(size * rows))
    if count > left:
        taken = f" after the held-out splits took {start}" if start else ""
        raise ValueError(f"{name} asks for {count} rows, but {left} of {rows} are left{taken}")
    return count


def _slice(name: str, text: str, available: dict[str, int]) -> Rows:
    match = _SLICE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f'"{text}" is not a split: write a count, a fraction, "train", "train[:80%]" or "train[100:200]"'
        )
    if match["name"] not in available:
        raise ValueError(f'{name} wants the split "{match["name"]}", but the data have: {", ".join(available)}')
    rows = available[match["name"]]
    start, stop = _bound(match["start"], rows, 0), _bound(match["stop"], rows, rows)
    if start >= stop:
        raise ValueError(f'"{text}" holds no row: "{match["name"]}" has {rows}')
    return Rows(match["name"], None, start, stop)


def _bound(text: str | None, rows: int, default: int) -> int:
    if text is None:
        return default
    value = round(int(text[:-1]) / 100 * rows) if text.endswith("%") else int(text)
    return min(max(value + rows if value < 0 else value, 0), rows)


def _check_apart(splits: dict[str, Rows]) -> None:
    """Refuse held-out rows that are in another split, too."""
    names = list(splits)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            a, b = splits[first], splits[second]
            if a.source != b.source:
                continue
            if a.seed != b.seed and a.count + b.count > 0:
                ways = "one by a slice and one by a count; use one way for both"
                raise ValueError(f"{first} and {second} draw from {a.source}, {ways}")
            if max(a.start, b.start) < min(a.stop, b.stop):
                rows = f"rows {max(a.start, b.start)} to {min(a.stop, b.stop) - 1} of {a.source}"
                raise ValueError(f"{first} and {second} share {rows}")
