"""How the choice of a tuned configuration stands: inert data, and what is said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lorafile.specs.positions import Path


@dataclass(frozen=True)
class Edge:
    """A best value at the end of what was tried.

    :ivar next: the value that would come after it; None where none is valid
    :ivar extended: how many values the plan has added at that end
    """

    setting: str
    highest: bool
    value: Any
    next: Any | None
    where: Path
    extended: int = 0

    @property
    def words(self) -> str:
        """Return `best at 0.001, the highest that was tried`."""
        return f"best at {shown(self.value)}, the {'highest' if self.highest else 'lowest'} that was tried"


@dataclass(frozen=True)
class Standing:
    """How the choice of one configuration stands.

    :ivar tried: setting -> the values that its candidates have, ascending where they are numbers
    :ivar waiting, runs: how many runs of candidates are still to come, and how many there are
    :ivar chosen: the candidate's name; empty until every run of every candidate has ended
    :ivar values: setting -> the chosen value
    :ivar mean: the chosen candidate's mean of the metric that is chosen by, on validation
    :ivar lost: candidate -> outcome -> how many of its runs ended so; such a candidate loses to any whole one
    :ivar whole: how many candidates finished under every seed
    :ivar edges: where the best value is not bracketed
    :ivar later: kind -> how many nodes are known only after the choice
    :ivar places: where the spec says that they are tuned; the same for all that share candidates
    """

    configuration: str
    settings: str
    tried: dict[str, tuple[Any, ...]]
    candidates: int
    waiting: int
    runs: int
    chosen: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    mean: float | None = None
    metric: str = ""
    lost: dict[str, dict[str, int]] = field(default_factory=dict)
    whole: int = 0
    edges: tuple[Edge, ...] = ()
    later: dict[str, int] = field(default_factory=dict)
    places: tuple[Path, ...] = ()

    @property
    def why_open(self) -> str:
        """Say why nothing is chosen yet; nothing where it is."""
        if self.chosen:
            return ""
        left = f"{self.waiting} of {self.runs} runs of its {self.candidates} candidates are still to come"
        others = "other configurations that share its candidates are not finished"
        return f"its {self.settings} is not chosen yet: {left if self.waiting else others}"

    @property
    def choice(self) -> str:
        """Say what was chosen, from how many, and what speaks against it."""
        values = ", ".join(f"{name.rpartition('.')[2]} = {shown(value)}" for name, value in self.values.items())
        told = f"{self.configuration}: {values}, of {self.candidates} candidates on validation"
        told += f" (mean {self.metric} {self.mean:.4g})" if self.mean is not None else ""
        if not self.whole:
            told += "; no candidate finished under every seed"
        return told


def shown(value: Any) -> str:
    """Return a value as a spec writes it."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def edge_lines(tuning: Sequence[Standing]) -> list[str]:
    """Return a line for each tuned setting whose best value is not bracketed, with the next values for all."""
    lines = []
    at: dict[tuple[Any, ...], list[tuple[Standing, Edge]]] = {}
    for one in tuning:
        for edge in one.edges:
            at.setdefault((edge.where, edge.highest, edge.value), []).append((one, edge))
    for (where, *_), found in at.items():
        edge = found[0][1]
        names = ", ".join(one.configuration for one, _ in found)
        sharing = sum(edge.setting in one.tried and where in one.places for one in tuning)
        line = f"Not bracketed: {edge.setting.rpartition('.')[2]} of {names} is {edge.words}"
        lines.append(f"{line}; {_remedy(edge, sharing)}")
    return lines


def _remedy(edge: Edge, sharing: int) -> str:
    if edge.next is None:
        return "no valid value follows."
    everyone = f" for all {sharing} configurations that share its candidates" if sharing > 1 else ""
    if edge.extended:
        return f"the plan added {edge.extended} values there, and adds no more; the next would be {shown(edge.next)}."
    return f"next would be {shown(edge.next)}{everyone}: add it to tune, or set extend = true."
