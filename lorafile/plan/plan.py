"""A plan: for every node of a study what would be done with it, and why. Inert data."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lorafile.files.run_directory import Unfinished
from lorafile.graph.graph import Graph
from lorafile.plan.missing_objects import Damage
from lorafile.plan.targeting import WHOLE, Selection
from lorafile.state import Attempt

if TYPE_CHECKING:
    from lorafile.plan.tuning_status import Standing


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


@dataclass
class Plan:
    """What an apply would do: inert data."""

    study: str
    changes: list[Change]
    graph: Graph
    results: dict[str, Attempt] = field(default_factory=dict)  # key -> the attempt that would be reused
    warnings: list[str] = field(default_factory=list)
    device: str = "cpu"
    workers: int = 1
    hourly: float | None = None  # what an hour of one device costs
    unfinished: dict[str, Unfinished] = field(default_factory=dict)  # key -> how far a run came that is to go on
    tuning: "list[Standing]" = field(default_factory=list)  # of every configuration that is tuned
    selection: Selection = WHOLE
    left_out: int = 0  # how many nodes would run, and are not selected
    damaged: list[Damage] = field(default_factory=list)  # of what is kept as it is
    refreshed: bool = False  # its lock is not the one beside the spec: an apply writes it

    def summary(self) -> dict[str, int]:
        """Return how many nodes each action has."""
        counts = Counter(change.action for change in self.changes)
        return {action.value: counts[action] for action in Action}

    @property
    def work(self) -> list[Change]:
        """What would be done, in order."""
        return [change for change in self.changes if change.action in WORK]

    def save(self, file: str | Path) -> None:
        """Write it as a file that `lora apply` takes, and `Study.approved`.

        :raises LoraError: when something else stands there
        """
        from lorafile.plan.planfile import save

        save(self, Path(file))


def with_forecasts(plan: Plan, forecasts: dict[str, dict[str, Any]]) -> Plan:
    """Return the plan with a forecast on each line that has one."""
    plan.changes = [
        change._replace(forecast=forecasts[change.key]) if change.key in forecasts else change
        for change in plan.changes
    ]
    return plan
