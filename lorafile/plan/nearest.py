"""Which finished node is most like a new one: the reason that a plan gives for running it."""

from dataclasses import dataclass, field
from operator import ne
from typing import Any

from lorafile.plan.drift import apart, describe, flat
from lorafile.state import State

_SHOWN = 3  # settings that are named


@dataclass
class Nearest:
    """The finished nodes of one kind.

    :ivar flats: the settings of each, as `section.setting` -> value
    :ivar rows: of each node the values of the `varying` settings, in their order: the others are alike in all of them
    """

    addresses: list[str]
    flats: list[dict[str, Any]]
    keys: set[str]
    varying: list[str] = field(init=False)
    rows: list[tuple[Any, ...]] = field(init=False)

    @classmethod
    def of(cls, state: State, kind: str) -> "Nearest":
        """Return what state has finished of a kind."""
        found = state.finished(kind)
        nodes = [node for node, _ in found]
        return cls([address for _, address in found], [flat(node) for node in nodes], {node.key for node in nodes})

    def __post_init__(self) -> None:
        first = self.flats[0] if self.flats else {}
        names = dict.fromkeys(name for one in self.flats for name in one)
        self.varying = [name for name in names if any(one.get(name) != first.get(name) for one in self.flats)]
        self.rows = [tuple(map(one.get, self.varying)) for one in self.flats]

    def reason(self, wanted: dict[str, Any]) -> str:
        """Name the node in which the fewest settings differ, of several the one whose numbers are nearest."""
        if not self.rows:
            return "nothing like it is finished"
        target = tuple(map(wanted.get, self.varying))
        counts = [sum(map(ne, row, target)) for row in self.rows]
        least = min(counts)
        alike = [number for number, count in enumerate(counts) if count == least]
        best = min(alike, key=lambda number: self._apart(self.rows[number], target))
        settings, method = self.flats[best], str(wanted.get("adapter.method", "lora"))
        differing = sorted(name for name in wanted.keys() | settings.keys() if wanted.get(name) != settings.get(name))
        told = [describe(name, settings.get(name), wanted.get(name), method) for name in differing]
        shown = ", ".join(told[:_SHOWN]) + (f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")
        return f"new; nearest is {self.addresses[best]}: {shown}"

    def _apart(self, row: tuple[Any, ...], target: tuple[Any, ...]) -> float:
        return sum(apart(one, other) for one, other in zip(row, target, strict=True) if one != other)
