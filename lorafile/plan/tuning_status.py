"""How the choice of a tuned configuration stands, as inert data, and the sentences that state it."""

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
    path: Path
    extended: int = 0

    @property
    def words(self) -> str:
        """Return `best at 0.001, the highest that was tried`."""
        return f"best at {shown_value(self.value)}, the {'highest' if self.highest else 'lowest'} that was tried"


@dataclass(frozen=True)
class TuningStatus:
    """How the choice of one tuned configuration stands.

    :ivar tried: setting -> the values that its candidates have, ascending where they are numbers
    :ivar waiting: how many runs of candidates are still to come
    :ivar runs: how many runs of candidates there are
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
        left = f"{self.waiting} of {self.runs} runs of its {self.candidates} candidates have not finished"
        others = "other configurations that share its candidates are not finished"
        return f"its {self.settings} is not chosen yet: {left if self.waiting else others}"

    @property
    def choice(self) -> str:
        """Say what was chosen, from how many, and what speaks against it."""
        values = ", ".join(f"{name.rpartition('.')[2]} = {shown_value(value)}" for name, value in self.values.items())
        text = f"{self.configuration}: {values}, of {self.candidates} candidates on validation"
        text += f" (mean {self.metric} {self.mean:.4g})" if self.mean is not None else ""
        if not self.whole:
            text += "; no candidate finished with every seed"
        return text


def shown_value(value: Any) -> str:
    """Return a value as a spec writes it."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def edge_lines(tuning: Sequence[TuningStatus]) -> list[str]:
    """Return a line for each tuned setting whose best value is not bracketed, with the next values for all."""
    lines = []
    by_edge: dict[tuple[Any, ...], list[tuple[TuningStatus, Edge]]] = {}
    for status in tuning:
        for edge in status.edges:
            by_edge.setdefault((edge.path, edge.highest, edge.value), []).append((status, edge))
    for (place, *_), members in by_edge.items():
        edge = members[0][1]
        names = ", ".join(status.configuration for status, _ in members)
        sharing = sum(edge.setting in status.tried and place in status.places for status in tuning)
        line = f"Not bracketed: {edge.setting.rpartition('.')[2]} of {names} is {edge.words}"
        lines.append(f"{line}; {_remedy(edge, sharing)}")
    return lines


def _remedy(edge: Edge, sharing: int) -> str:
    if edge.next is None:
        return "there is no valid next value."
    everyone = f" for all {sharing} configurations that share its candidates" if sharing > 1 else ""
    if edge.extended:
        following = f"the next would be {shown_value(edge.next)}"
        return f"the plan already added {edge.extended} values there and adds no more; {following}."
    return f"next would be {shown_value(edge.next)}{everyone}: add it to tune, or set extend = true."
