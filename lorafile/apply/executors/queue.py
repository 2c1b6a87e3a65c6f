"""What waits for a worker, and which groups go out next, together or alone."""

import math
from dataclasses import dataclass, field

from lorafile.apply.executors.base import Group
from lorafile.engine.request import PackSizes

_UNMEASURED = 16  # groups that a worker gets at most while nobody knows how many go together


@dataclass
class Queue:
    """Groups in their order: whole seeds first, each as soon as what it reads is there.

    :ivar pack: how many replicates go together at most; 0 where that is measured for each class
    :ivar widths: class -> what was measured
    """

    waiting: list[Group]
    pack: int = 1
    widths: dict[str, PackSizes] = field(default_factory=dict)
    _coming: set[str] = field(default_factory=set)
    _died: set[Group] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._coming |= {key for group in self.waiting for key in group.keys}

    def take(self, bases: set[str], free: int) -> list[Group]:
        """Take out the next groups for one worker: rather such as share a base that is loaded; one, or a pack of them.

        :param free: workers that could take something; a pack leaves the others their share
        """
        ready = (group for group in self.waiting if self._is_ready(group))
        first = next(ready, None)
        if first is None:
            return []
        if first.base and first.base not in bases:
            first = next((group for group in ready if group.base in bases), first)
        taken = [first]
        if self._packs(first):
            alike = [g for g in self.waiting if g.pack == first.pack and self._packs(g) and self._is_ready(g)]
            known = self.known(first)
            limit = known.most if known else _UNMEASURED
            taken = alike[: max(1, min(limit, math.ceil(len(alike) / free)))]
        gone = {id(group) for group in taken}
        self.waiting = [group for group in self.waiting if id(group) not in gone]
        return taken

    def known(self, group: Group) -> PackSizes | None:
        """Return how many of a group's class go together; None where that is to be measured."""
        if not self._packs(group):
            return PackSizes()
        return PackSizes(self.pack, self.pack) if self.pack else self.widths.get(group.pack)

    def learn(self, group: Group, widths: PackSizes) -> bool:
        """Take in what a worker has measured for a group's class; return whether it is the first to say so."""
        new = group.pack not in self.widths
        self.widths.setdefault(group.pack, widths)
        return new

    def ended(self, *keys: str) -> None:
        """Note nodes that are done, or will not be done any more: nobody waits for them."""
        self._coming -= set(keys)

    def give_back(self, groups: list[Group]) -> None:
        """Put groups back where they were: they go out next."""
        self.waiting[:0] = groups

    def bury(self, groups: list[Group], running: set[str]) -> None:
        """Give back the groups of a worker that died, once; what it was doing goes out apart from then on."""
        hurt = [group for group in groups if running & set(group.keys)] or groups
        lost = [group for group in hurt if group in self._died]
        for group in lost:
            self.ended(*group.keys)
        self._died |= set(hurt)
        self.give_back([group for group in groups if group not in lost])

    def has_died(self, group: Group) -> bool:
        """Return whether a worker died of a group, or at least while it did it."""
        return group in self._died

    def _packs(self, group: Group) -> bool:
        return bool(group.pack) and self.pack != 1 and group not in self._died

    def _is_ready(self, group: Group) -> bool:
        return not group.after & self._coming
