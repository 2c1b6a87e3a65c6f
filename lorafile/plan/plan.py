"""A plan: for every node of a study what would be done with it, and why. Inert data that is never assigned to."""

from collections import Counter
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

from lorafile.files.run_directory import Unfinished
from lorafile.graph.graph import Graph
from lorafile.plan.clusters.machines import Machines, this_machine
from lorafile.plan.tuning_status import TuningStatus
from lorafile.state import Attempt
from lorafile.units import Price, html_table


class Action(StrEnum):
    """What a plan does with a node."""

    RUN = "run"
    REUSE = "reuse"
    RETRY = "retry"
    DRIFT = "drift"
    BLOCKED = "blocked"
    UNDECLARED = "undeclared"


WORK = (Action.RUN, Action.RETRY)


class Change(NamedTuple):
    """One node in a plan."""

    address: str
    key: str
    kind: str
    action: Action
    reason: str
    configuration: str = ""
    seed: int | None = None
    forecast: dict[str, Any] | None = None


@dataclass(frozen=True)
class PlanOptions:
    """Which part of a study a plan is of, and which finished nodes it does again.

    :ivar target: patterns of addresses, or of configurations' names; only these, and what they read
    :ivar exclude: patterns of the same kind; without these, and what reads them
    :ivar replace: patterns of addresses of finished nodes that are done again
    :ivar rerun_drifted: whether what was done in another environment is done again in this one
    :ivar machines: where the work would run, if not on this machine
    """

    target: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    rerun_drifted: bool = False
    machines: Machines | None = None

    @property
    def partial(self) -> bool:
        """Whether a part of the study may be left out."""
        return bool(self.target or self.exclude)

    @property
    def words(self) -> str:
        """What leaves a part out, as the command line writes it."""
        return " ".join(f"--{name} {pattern}" for name in ("target", "exclude") for pattern in getattr(self, name))

    def without_reruns(self) -> "PlanOptions":
        """Return the options of the plans that follow in the same apply: nothing is done again twice."""
        return replace(self, replace=(), rerun_drifted=False)


EVERYTHING = PlanOptions()


@dataclass(frozen=True)
class Damage:
    """A file of a finished node that is missing from the state, or damaged in it."""

    address: str
    key: str
    file: str
    digest: str
    what: str  # "missing" or "damaged"


@dataclass(frozen=True)
class MemoryLimit:
    """What forecasts of memory are compared with.

    :ivar memory: bytes of the device
    :ivar overhead: bytes of it that no tensor gets: the driver's and a CUDA context's
    :ivar gpu: whether it is a GPU; else it is a machine, and peak memory the resident size of a worker
    """

    name: str
    memory: int
    overhead: int
    gpu: bool

    @property
    def usable(self) -> int:
        """Bytes that a run may hold."""
        return max(0, self.memory - self.overhead)


@dataclass(frozen=True, repr=False)
class Plan:
    """What an apply would do. A step of planning returns another plan: `dataclasses.replace`.

    :ivar results: key -> the attempt that would be reused
    :ivar hourly: what an hour of one device costs
    :ivar unfinished: key -> how far a run came that is to go on
    :ivar tuning: of every configuration that is tuned
    :ivar left_out: how many nodes would run, and are not selected
    :ivar damaged: files of what is kept as it is
    :ivar if_equal: keys of what is reused if its data are prepared equal to finished ones
    :ivar target: what its forecasts of memory are compared with
    :ivar programs: a line for each of the user's programs that would run
    :ivar refreshed: whether its lock is not the one next to the spec: an apply writes it
    """

    study: str
    graph: Graph
    changes: tuple[Change, ...] = ()
    results: dict[str, Attempt] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    device: str = "cpu"
    workers: int = 1
    hourly: Price | None = None
    unfinished: dict[str, Unfinished] = field(default_factory=dict)
    tuning: tuple[TuningStatus, ...] = ()
    options: PlanOptions = EVERYTHING
    left_out: int = 0
    damaged: tuple[Damage, ...] = ()
    if_equal: frozenset[str] = frozenset()
    refreshed: bool = False
    target: MemoryLimit | None = None
    programs: tuple[str, ...] = ()

    @cached_property
    def machines(self) -> Machines:
        """Where the work would run."""
        return self.options.machines or this_machine()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {action}" for action, count in self.summary().items() if count)
        return f"<Plan of {self.study!r}: {counts or 'no nodes'}; {self.device}>"

    def _repr_html_(self) -> str:
        """Return the plan as a table in a notebook: a row for each kind of node, a column for each action."""
        actions = [action for action, count in self.summary().items() if count]
        counts = Counter((change.kind, change.action.value) for change in self.changes)
        kinds = dict.fromkeys(change.kind for change in self.changes)
        rows = [[kind, *(counts[kind, action] or "" for action in actions)] for kind in kinds]
        lines = [repr(self)[1:-1], *self.warnings]
        return html_table(["node", *actions], rows, lines)

    def summary(self) -> dict[str, int]:
        """Return how many nodes each action has."""
        counts = Counter(change.action for change in self.changes)
        return {action.value: counts[action] for action in Action}

    @property
    def unlocked(self) -> list[str]:
        """Models whose weights are not here: what the plan says of time and memory holds, and its keys do not."""
        return [name for name, model in self.graph.lock.models.items() if not model.is_locked]

    @property
    def work(self) -> list[Change]:
        """What would be done, in order."""
        return [change for change in self.changes if change.action in WORK]

    def with_work(self, keys: set[str]) -> "Plan":
        """Return the plan that would do of its work only these nodes; everything else stays as it is."""
        return replace(self, changes=tuple(c for c in self.changes if c.action not in WORK or c.key in keys))

    def with_forecasts(self, forecasts: dict[str, dict[str, Any]]) -> "Plan":
        """Return the plan with a forecast on each change that has one, by key."""
        changes = (c._replace(forecast=forecasts[c.key]) if c.key in forecasts else c for c in self.changes)
        return replace(self, changes=tuple(changes))
