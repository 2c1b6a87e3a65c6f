"""What two locks say differently of the same models and data."""

from dataclasses import asdict
from typing import Any

from lorafile.lock.lockfile import Lock

_QUIET = ("settings", "modules", "tensors", "characters", "bytes", "label", "labels")  # follow from the others
_SHOWN = 12  # characters of a revision


def moved(old: Lock | None, new: Lock) -> list[str]:
    """Return a sentence for each model and data set that both have and that differs: what of it."""
    found = []
    for kind, before, after in (("model", old.models, new.models), ("data", old.data, new.data)) if old else ():
        for name in sorted(before.keys() & after.keys()):
            if before[name] != after[name]:
                verb = "has moved" if kind == "model" else "have moved"
                found.append(f"The {kind} {name} {verb} since the lock: {_apart(before[name], after[name])}.")
    return found


def _apart(before: Any, after: Any) -> str:
    rows = zip(asdict(before).items(), asdict(after).values(), strict=True)
    differing = {name: (one, other) for (name, one), other in rows if one != other}
    words = [_words(name, *pair) for name, pair in differing.items() if name not in _QUIET]
    return ", ".join(words) or ", ".join(f"other {name}" for name in differing)


def _words(name: str, one: Any, other: Any) -> str:
    if name == "revision":
        return f"revision {str(one)[:_SHOWN]} → {str(other)[:_SHOWN]}"
    if name == "rows":
        splits = [split for split in {**one, **other} if one.get(split) != other.get(split)]
        return ", ".join(f"{split} {one.get(split, 0)} → {other.get(split, 0)} rows" for split in splits)
    return f"other {name}"
