"""Which rows of a data set are for training, for choosing, and for the final figures."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from lorafile.engine.data.sources import canonical
from lorafile.specs.tables.data import SplitTable

DEFAULT_SHARE = {"test": 0.1, "validation": 0.1}
_SLICE = re.compile(r"(?P<name>[\w.-]+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Rows:
    """A slice of the rows of one of the data's own splits; with a seed, of those rows in a seeded order.

    :ivar cluster: the column by which rows belong together: a slice has those whose first row is in it, all of each
    """

    source: str
    seed: int | None
    start: int
    stop: int
    cluster: str | None = None

    @property
    def rule(self) -> dict[str, Any]:
        """The slice as it stands in a key."""
        rule = {"seed": self.seed, "start": self.start, "stop": self.stop}
        return rule | ({"cluster": self.cluster} if self.cluster else {})

    @property
    def count(self) -> int:
        """How many rows these are."""
        return self.stop - self.start


def draw(table: SplitTable, seed: int, available: dict[str, int], cluster: str | None = None) -> dict[str, Rows]:
    """Return split -> its rows.

    A name or slice takes rows in file order. A count or a fraction takes them in a seeded order from the split
    of that name, or else from a pool (its `train` split, or its only one); from the pool test draws first, then
    validation, then train, so that a larger train split never moves the held-out examples.

    :param cluster: the column by which rows belong together, which stay so where several splits draw from one source
    :raises ValueError: when a split asks for what is not there, two splits share rows, or several of the data's own
        could be meant
    """
    wanted = {name: getattr(table, name) for name in ("test", "validation", "train")}
    own = {name: _own(name, available) for name, size in wanted.items() if not isinstance(size, str)}
    splits: dict[str, Rows] = {}
    used = 0
    for name, size in wanted.items():
        size = _default(name, size, wanted, own, available)
        if size is None:
            continue
        if isinstance(size, str):
            splits[name] = _slice(name, size, available)
            continue
        held = own[name] if name != "train" else None
        source = held or _pool(wanted["train"], available)
        start = 0 if held else used
        stop = start + _count(name, size, available[source], start)
        used = used if held else stop
        splits[name] = Rows(source, seed, start, stop)
    _check_apart(splits)
    sources = Counter(rows.source for rows in splits.values() if rows.seed is not None)
    splits = {
        name: replace(rows, cluster=cluster) if rows.seed is not None and sources[rows.source] > 1 else rows
        for name, rows in splits.items()
    }
    return {name: splits[name] for name in ("train", "validation", "test") if name in splits}


def _own(name: str, available: dict[str, int]) -> str | None:
    """Return which of the data's own splits is meant by `train`, `validation` or `test`; None where there is none.

    :raises ValueError: when several are (`validation_matched`, `validation_mismatched`)
    """
    if name in available:
        return name
    variants = [split for split in available if canonical(split) == name]
    if len(variants) > 1:
        raise ValueError(
            f"the data have several splits for {name} ({', '.join(variants)}); set one: "
            f'split = {{ …, {name} = "{variants[0]}" }}'
        )
    return variants[0] if variants else None


def _pool(train: int | float | str | None, available: dict[str, int]) -> str:
    """Return the split of the data from which rows are drawn: their `train`, what the spec calls so, or their only one.

    :raises ValueError: when there are several: they may be splits, configurations or languages
    """
    if isinstance(train, str) and "train" not in available:
        match = _SLICE.fullmatch(train.strip())
        if match is not None and match["name"] in available:
            return match["name"]
    own = _own("train", available)
    if own is None and len(available) > 1:
        raise ValueError(
            f"the data have {', '.join(available)}, but none is named train, so the purpose of each is unknown. "
            "Name one file in data.path, or a configuration in data.name, or assign the splits: "
            f'split = {{ train = "{next(iter(available))}", … }}'
        )
    return own or next(iter(available))


def _default(
    name: str,
    size: int | float | str | None,
    wanted: dict[str, Any],
    own: dict[str, str | None],
    available: dict[str, int],
) -> int | float | str | None:
    """Return what a split is where the spec does not say: the data's own, or a share of the pool."""
    if size is not None:
        return size
    if name == "train":
        if any(isinstance(other, str) for other in wanted.values()):
            return None  # who slices by hand says what is left for training, too
        drawn = any(wanted.values()) or not (own["validation"] and own["test"])
        return 1.0 if drawn else _pool(None, available)
    if own.get(name) and len(available) == 1:
        raise ValueError(
            f"the data have only {own[name]}. To train on part of it, set split = {{ "
            f'train = "{own[name]}[:80%]", test = "{own[name]}[80%:]" }}'
        )
    if own.get(name):
        return own[name]
    return None if any(wanted.values()) else DEFAULT_SHARE[name]


def _count(name: str, size: int | float, rows: int, start: int) -> int:
    left = rows - start
    if name == "train" and size == 1.0 and isinstance(size, float):
        return left
    count = size if isinstance(size, int) else max(1, round(size * rows))
    if count > left:
        taken = f" after the held-out splits took {start:,}" if start else ""
        remedy = f"ask for at most {left}" if left else "let the other splits take fewer"
        raise ValueError(f"{name} asks for {count:,} rows, but {left:,} of {rows:,} are left{taken}; {remedy}")
    return count


def _slice(name: str, text: str, available: dict[str, int]) -> Rows:
    match = _SLICE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f'"{text}" is not a split: write a count, a fraction, "train", "train[:80%]" or "train[100:200]"'
        )
    source = _own(match["name"], available)
    if source is None:
        raise ValueError(f'{name} needs the split "{match["name"]}", but the data have: {", ".join(available)}')
    rows = available[source]
    start, stop = _bound(match["start"], rows, 0), _bound(match["stop"], rows, rows)
    if start >= stop:
        raise ValueError(f'"{text}" contains no rows: "{match["name"]}" has {rows}')
    return Rows(source, None, start, stop)


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
