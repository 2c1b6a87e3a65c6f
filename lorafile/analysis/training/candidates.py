"""The candidates of tuned configurations over the study's seeds, for their table and their chart."""

from collections import Counter
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lorafile.analysis.common.format import setting
from lorafile.analysis.common.scores import Score, lost
from lorafile.results.results import Results, rows_of


@dataclass(frozen=True)
class Candidate:
    """One candidate over the study's seeds.

    :ivar values: setting -> value
    :ivar figures: seed -> its figure on validation
    :ivar outcomes: how many runs ended in which way
    """

    configuration: str
    name: str
    values: dict[str, Any]
    figures: dict[int, float]
    outcomes: Counter[str]
    chosen: bool
    added: bool

    @property
    def score(self) -> Score:
        """Its mean and spread over seeds, and what became of the runs without a figure."""
        return Score.of(list(self.figures.values()), self.outcomes.total(), lost(self.outcomes))

    @property
    def label(self) -> str:
        """Return `learning_rate=1e-3`."""
        return ", ".join(f"{name.rpartition('.')[2]}={setting(value)}" for name, value in self.values.items())


def candidates(results: Results, metric: str, among: list[str]) -> list[Candidate]:
    """Return the candidates of some configurations, each configuration's in the order of its values."""
    frame = results.candidates
    names = ("configuration", "candidate", "values", "seed", "outcome", "chosen", "added", f"validation.{metric}")
    found: dict[str, Candidate] = {}
    for label, name, values, seed, outcome, chosen, added, figure in rows_of(frame, *names):
        if label not in among:
            continue
        one = found.setdefault(
            name, Candidate(label, name, dict(values), {}, Counter(), chosen is not None and bool(chosen), bool(added))
        )
        one.outcomes[str(outcome or "missing")] += 1
        if outcome == "done" and figure is not None and isfinite(figure):
            one.figures[int(seed)] = float(figure)
    return sorted(found.values(), key=lambda one: (among.index(one.configuration), _order(one.values)))


def _order(values: dict[str, Any]) -> list[tuple[bool, Any]]:
    return [
        (isinstance(value, str), value if isinstance(value, (int, float, str)) else str(value))
        for value in values.values()
    ]
