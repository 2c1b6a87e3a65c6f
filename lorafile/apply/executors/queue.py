"""What waits for a worker: in which order, alone or in packs, and what comes back when a worker is lost."""

import math
from collections import Counter
from dataclasses import dataclass, field

from lorafile.apply.executors.base import Group
from lorafile.engine.request import PackSizes

MOST_LOSSES = 5  # of machines, without a new checkpoint between them, until a group is given up
_UNMEASURED = 16  # groups that a worker gets at most while it is not measured yet how many go together


@dataclass
class Queue:
    """What waits for a worker: whole seeds first, each group as soon as what it reads is there, together or alone.

    :ivar pack: how many replicates go together at most; 0 where that is measured for each class
    :ivar sizes: class -> what was measured
    """

    waiting: list[Group]
    pack: int = 1
    sizes: dict[str, PackSizes] = field(default_factory=dict)
    _coming: set[str] = field(default_factory=set)
    _open: set[str] = field(default_factory=set)  # without a final result
    _died: set[Group] = field(default_factory=set)
    _losses: Counter[Group] = field(default_factory=Counter)  # of machines, since a group's last checkpoint

    def __post_init__(self) -> None:
        self._coming |= {key for group in self.waiting for key in group.keys}
        self._open |= self._coming

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
        if self._can_pack(first):
            alike = [g for g in self.waiting if g.pack == first.pack and self._can_pack(g) and self._is_ready(g)]
            sizes = self.pack_sizes(first)
            limit = sizes.most if sizes else _UNMEASURED
            taken = alike[: max(1, min(limit, math.ceil(len(alike) / free)))]
        gone = {id(group) for group in taken}
        self.waiting = [group for group in self.waiting if id(group) not in gone]
        return taken

    def take_all(self, keys: set[str]) -> list[Group]:
        """Take out the groups that have one of these nodes."""
        taken = [group for group in self.waiting if keys & set(group.keys)]
        self.waiting = [group for group in self.waiting if not keys & set(group.keys)]
        return taken

    @property
    def has_ready(self) -> bool:
        """Whether a group could go out now."""
        return any(self._is_ready(group) for group in self.waiting)

    @property
    def all_ready(self) -> bool:
        """Whether no group waits for another one."""
        return all(self._is_ready(group) for group in self.waiting)

    def pack_sizes(self, group: Group) -> PackSizes | None:
        """Return how many of a group's class go together; None where that is to be measured."""
        if not self._can_pack(group):
            return PackSizes()
        return PackSizes(self.pack, self.pack) if self.pack else self.sizes.get(group.pack)

    def set_pack_sizes(self, group: Group, sizes: PackSizes) -> bool:
        """Take in what a worker has measured for a group's class; return whether it is the first to say so."""
        new = group.pack not in self.sizes
        self.sizes.setdefault(group.pack, sizes)
        return new

    def mark_ended(self, *keys: str) -> None:
        """Note nodes that are done, or will not be done any more."""
        self._coming -= set(keys)

    def mark_final(self, key: str) -> None:
        """Note a node that has ended otherwise than interrupted, which another worker might go on with."""
        self._open.discard(key)

    def is_open(self, key: str) -> bool:
        """Return whether a node is of this work and has no final result: what is said of any other is dropped."""
        return key in self._open

    def give_back(self, groups: list[Group]) -> None:
        """Put groups back where they were: they go out next."""
        self.waiting[:0] = groups

    def handle_dead_worker(self, groups: list[Group], running: set[str]) -> None:
        """Give back the groups of a worker that died, once; what it was doing is not packed from then on."""
        suspects = [group for group in groups if running & set(group.keys)] or groups
        given_up = [group for group in suspects if group in self._died]
        for group in given_up:
            self.mark_ended(*group.keys)
        self._died |= set(suspects)
        self.give_back([group for group in groups if group not in given_up])

    def handle_lost_machine(self, groups: list[Group], running: set[str], progressed: set[str]) -> list[Group]:
        """Give back the groups of a worker whose machine went away, which was not their fault; return those given up.

        :param running: the nodes that it was doing
        :param progressed: the nodes that have ended, or have a new checkpoint, since the groups went out
        """
        for group in groups:
            if progressed & set(group.keys):
                del self._losses[group]
        suspects = [group for group in groups if running & set(group.keys)] or groups
        self._losses.update(suspects)
        given_up = [group for group in suspects if self._losses[group] > MOST_LOSSES]
        for group in given_up:
            self.mark_ended(*group.keys)
        self.give_back([group for group in groups if group not in given_up])
        return given_up

    def has_died(self, group: Group) -> bool:
        """Return whether a worker died of a group, or at least while it did it."""
        return group in self._died

    def _can_pack(self, group: Group) -> bool:
        return bool(group.pack) and self.pack != 1 and group not in self._died

    def _is_ready(self, group: Group) -> bool:
        return not group.after & self._coming
