"""Which configurations are compared with which: those that a `compare` table declares, or a study's own by default."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from operator import ne
from typing import Any

from lorafile.analysis.common.factors import factors, label, setting_labels, settings_of, sweeps, tuned
from lorafile.analysis.common.scores import best
from lorafile.analysis.compare.outcomes import Margin
from lorafile.results.results import Results
from lorafile.specs.configurations import flatten
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.specs.tables.train import START

RATE = "train.learning_rate"
Labels = tuple[str | None, ...]


@dataclass(frozen=True)
class Pair:
    """A comparison: the first configuration with the second, the baseline.

    :ivar factor: the setting that it is about; empty where everything that differs is
    :ivar margin: the table's own, as the spec writes it; `waive`: what may differ apart from the factor
    :ivar chosen: the one of them that was chosen among several on validation, if any
    """

    one: str
    other: str
    factor: str
    margin: Margin = None
    waive: tuple[str, ...] = ()
    chosen: str = ""

    @property
    def names(self) -> tuple[str, str]:
        """Both configurations."""
        return self.one, self.other

    @property
    def unordered(self) -> frozenset[str]:
        """Both configurations, whichever is the baseline."""
        return frozenset(self.names)


def pairs(results: Results, table: AnalysisTable) -> list[Pair]:
    """Return the comparisons of one `compare` table; without a factor, those of every sweep."""
    unique: dict[frozenset[str], Pair] = {}
    everyone = table.pairs == "all"
    whole = table.factor is None and (table.baseline is not None or everyone)
    lora = [name for name, how in results.methods.items() if how == "lora"]
    for factor, members in [("", results.names)] if whole else _along(results, table.factor):
        picked = members[0] if factor == "method" and table.factor is None and len(lora) > 1 else ""
        for compared, baseline in _matched(results, factor, members, table.baseline, everyone):
            chosen = picked if picked in (compared, baseline) else ""
            pair = Pair(compared, baseline, factor, table.margin, tuple(table.waive), chosen)
            unique.setdefault(pair.unordered, pair)
    return list(unique.values())


def _along(results: Results, declared: str | None) -> list[tuple[str, list[str]]]:
    """Return (factor, configurations) for each factor of each sweep, or for the declared one.

    Undeclared, a sweep over learning rates compares nothing: each configuration has a best rate of its own, which is
    chosen on validation. Methods are compared with the LoRA configuration that is best on validation.
    """
    groups = []
    for members in map(list, sweeps(results).values()):
        varied = factors(results, members)
        if declared is not None:
            groups += [(declared, members)] if declared in varied else []
            continue
        used = {results.methods[name] for name in members}
        if "method" in varied or not varied or used == {"none"}:  # what else varies is another method's own
            lora = best(_first_look(results), _begun_anew(results, "lora"))
            others = [name for name in members if results.methods[name] != "lora"]
            groups.append(("method", [lora, *others] if lora else members))
        if "method" not in varied and RATE not in varied:
            groups += [(factor, [*_usual_neighbour(results, factor, members), *members]) for factor in varied]
    return groups


def _begun_anew(results: Results, method: str) -> list[str]:
    """Return the configurations of a method that start from no other run; all of them, where all do."""
    names = [name for name, how in results.methods.items() if how == method]
    starts = results.setting(f"train.{START}")
    return [name for name in names if not starts[name]] or names


def _first_look(results: Results) -> Results:
    """Return what the first look saw: which comparisons there are must not change with the seeds of a later stage."""
    if len(results.looks) < 2:
        return results
    seeds = results.runs["seed"]
    return replace(results, runs=results.runs[seeds.isna() | seeds.isin(results.looks[0])])


def _usual_neighbour(results: Results, factor: str, members: list[str]) -> list[str]:
    """Return the configuration of another sweep with the factor's usual value that differs in nothing else, if any."""
    usual = _usual(results).get(factor)
    if usual in setting_labels(results, factor, members).values():
        return []
    others = {name: value for name, value in setting_labels(results, factor).items() if name not in members}
    for name in _with(others, usual):
        settings = [setting for setting in factors(results, [name, members[0]]) if setting != factor]
        if not settings and results.methods[name] == results.methods[members[0]]:
            return [name]
    return []


def _matched(
    results: Results, factor: str, members: list[str], baseline: dict[str, Any] | str | None, everyone: bool
) -> Iterable[tuple[str, str]]:
    """Yield (configuration, its baseline); in a grid the one that is equal in all other settings."""
    if everyone:
        values = setting_labels(results, factor, members) if factor else {}
        for other, one in combinations(members, 2):
            alike = [other, *_with(values, values.get(other))]
            differ = values.get(one) != values.get(other)
            if not factor or (differ and _Candidates(results, factor, alike).nearest(one) == other):
                yield one, other
        return
    chosen = _baselines(results, factor, members, baseline)
    if chosen:
        candidates = _Candidates(results, factor, chosen)
        apart = set(members) - set(chosen)
        yield from ((one, candidates.nearest(one)) for one in members if one in apart)


def _with(labels: dict[str, str], label: str | None) -> list[str]:
    return [name for name, other in labels.items() if other == label]


def _baselines(results: Results, factor: str, members: list[str], baseline: dict[str, Any] | str | None) -> list[str]:
    """Return the configurations that the others are compared with."""
    if isinstance(baseline, str):
        named = named_configuration(results, baseline)
        return [named] if named else []
    if baseline:
        wanted = {setting: label(setting, value) for setting, value in flatten(baseline).items()}
        labels = {setting: setting_labels(results, setting, members) for setting in wanted}
        return [name for name in members if all(labels[key].get(name) == value for key, value in wanted.items())]
    usual = _usual(results)
    if factor == "method" and results.methods[members[0]] == "lora":
        return members[:1]
    if not factor:
        return [max(members, key=lambda name: _agreement(results, name, usual))]
    values = setting_labels(results, factor, members)
    return _with(values, usual[factor] if usual.get(factor) in values.values() else next(iter(values.values()), None))


def named_configuration(results: Results, name: str) -> str | None:
    """Return the configuration that has a name or an alias."""
    for own, others in results.setting("aliases").items():
        if name == own or name in (others or ()):
            return own
    return None


@lru_cache(maxsize=8)
def _usual(results: Results) -> dict[str, str]:
    """Return factor -> the value that most configurations have: what a spec sets for all of them."""
    labels = {factor: list(setting_labels(results, factor).values()) for factor in factors(results)}
    return {factor: max(dict.fromkeys(values), key=values.count) for factor, values in labels.items()}


def _agreement(results: Results, name: str, usual: dict[str, str]) -> int:
    trained = results.methods[name] != "none"
    return trained + sum(setting_labels(results, factor, [name]).get(name) == value for factor, value in usual.items())


class _Candidates:
    """Baselines, of which each configuration gets the one that differs from it in the fewest settings.

    A grid of thousands has thousands of them: what each of its configurations asks for is made once.
    """

    def __init__(self, results: Results, factor: str, chosen: list[str]) -> None:
        self._results, self._chosen = results, chosen
        names = [name for name in settings_of(results) if name != factor]
        self._labels = {name: setting_labels(results, name, chosen) for name in names}
        self._values = {name: set(labels.values()) for name, labels in self._labels.items()}
        self._rows: dict[tuple[str, ...], dict[str, Labels]] = {}  # settings -> candidate -> its labels
        self._equal: dict[tuple[str, ...], dict[Labels, str]] = {}

    def nearest(self, one: str) -> str:
        """Return the candidate that differs from a configuration in the fewest settings other than the factor."""
        own = {name: setting_labels(self._results, name, [one]).get(one) for name in self._labels}
        varying = tuple(name for name, label in own.items() if self._varies(name, one, label))
        if varying not in self._rows:
            labels = [self._labels[name] for name in varying]
            rows = {name: tuple([values.get(name) for values in labels]) for name in self._chosen}
            self._rows[varying], self._equal[varying] = rows, {rows[name]: name for name in reversed(self._chosen)}
        rows, wanted = self._rows[varying], tuple([own[name] for name in varying])
        equal = self._equal[varying].get(wanted)
        return equal or min(self._chosen, key=lambda name: sum(map(ne, rows[name], wanted)))

    def _varies(self, setting: str, one: str, own: str | None) -> bool:
        """Return whether a setting varies among a configuration and the candidates, as `factors` says."""
        if len(self._values[setting] | ({own} if own is not None else set())) < 2:
            return False
        free, theirs = tuned(self._results), self._labels[setting]
        of_one = own is not None and setting not in free[one]
        return of_one or any(setting not in free[name] for name in self._chosen if name in theirs)
