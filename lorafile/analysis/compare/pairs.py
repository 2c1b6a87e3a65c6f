"""Which configurations are compared with which: those that a `compare` table declares, or a study's own by default."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

from lorafile.analysis.common.factors import factors, label, setting_labels, sweeps
from lorafile.analysis.common.scores import best
from lorafile.analysis.compare.outcomes import Margin
from lorafile.results.results import Results
from lorafile.specs.configurations import flatten
from lorafile.specs.tables.analysis import AnalysisTable

RATE = "train.learning_rate"


@dataclass(frozen=True)
class Pair:
    """A comparison: the first configuration held against the second, the baseline.

    :ivar factor: the setting that it is about; empty where everything that differs is
    :ivar margin: the table's own, as the spec writes it; `waive`: what may differ beside the factor
    """

    one: str
    other: str
    factor: str
    margin: Margin = None
    waive: tuple[str, ...] = ()


def pairs(results: Results, table: AnalysisTable) -> list[Pair]:
    """Return the comparisons of one `compare` table; without a factor, those of every sweep."""
    found: dict[frozenset[str], Pair] = {}
    if table.factor is None and (table.baseline is not None or table.pairs == "all"):
        groups = [("", results.names, table.baseline)]
    else:
        groups = [(factor, members, table.baseline) for factor, members in _along(results, table.factor)]
    for factor, members, baseline in groups:
        for one, other in _matched(results, factor, members, baseline, table.pairs == "all"):
            pair = Pair(one, other, factor, table.margin, tuple(table.waive))
            found.setdefault(frozenset((one, other)), pair)
    return list(found.values())


def _along(results: Results, declared: str | None) -> list[tuple[str, list[str]]]:
    """Return (factor, configurations) for each factor of each sweep, or for the declared one.

    Undeclared, a sweep over learning rates compares nothing: each configuration has a best rate of its own, which is
    chosen on validation. Methods are compared with the LoRA configuration that is best on validation.
    """
    found = []
    for members in sweeps(results).values():
        varied, mine = factors(results, list(members)), list(members)
        if declared is not None:
            found += [(declared, mine)] if declared in varied else []
            continue
        used = {results.methods[name] for name in mine}
        if "method" in varied or not varied or used == {"none"}:  # what else varies is another method's own
            lora = best(_first_look(results), [name for name, how in results.methods.items() if how == "lora"])
            others = [name for name in mine if results.methods[name] != "lora"]
            found.append(("method", [lora, *others] if lora else mine))
        if "method" not in varied and RATE not in varied:
            found += [(factor, [*_usual_neighbour(results, factor, mine), *mine]) for factor in varied]
    return found


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
    """Yield (configuration, what it is held against); in a grid the one that is equal in all other settings."""
    if everyone:
        values = setting_labels(results, factor, members) if factor else {}
        for other, one in combinations(members, 2):
            alike = [other, *_with(values, values.get(other))]
            apart = not factor or values.get(one) != values.get(other)
            if apart and (not factor or _nearest(results, factor, one, alike) == other):
                yield one, other
        return
    chosen = _baselines(results, factor, members, baseline)
    for one in members:
        if one not in chosen and chosen:
            yield one, _nearest(results, factor, one, chosen)


def _with(values: dict[str, str], value: str | None) -> list[str]:
    return [name for name, found in values.items() if found == value]


def _baselines(results: Results, factor: str, members: list[str], baseline: dict[str, Any] | str | None) -> list[str]:
    """Return the configurations that the others are held against."""
    if isinstance(baseline, str):
        named = named_configuration(results, baseline)
        return [named] if named else []
    if baseline:
        wanted = {setting: label(setting, value) for setting, value in flatten(baseline).items()}
        found = {setting: setting_labels(results, setting, members) for setting in wanted}
        return [name for name in members if all(found[key].get(name) == value for key, value in wanted.items())]
    usual = _usual(results)
    if factor == "method" and results.methods[members[0]] == "lora":
        return members[:1]
    if not factor:
        return [max(members, key=lambda name: _agreement(results, name, usual))]
    values = setting_labels(results, factor, members)
    if usual.get(factor) in values.values():
        return _with(values, usual[factor])
    return _with(values, next(iter(values.values()), None))


def named_configuration(results: Results, name: str) -> str | None:
    """Return the configuration that has a name or an alias."""
    for own, others in results.setting("aliases").items():
        if name == own or name in (others or ()):
            return own
    return None


@lru_cache(maxsize=8)
def _usual(results: Results) -> dict[str, str]:
    """Return factor -> the value that most configurations have: what a spec sets for all of them."""
    found: dict[str, str] = {}
    for factor in factors(results):
        values = list(setting_labels(results, factor).values())
        found[factor] = max(dict.fromkeys(values), key=values.count)
    return found


def _agreement(results: Results, name: str, usual: dict[str, str]) -> int:
    trained = results.methods[name] != "none"
    return trained + sum(setting_labels(results, factor, [name]).get(name) == value for factor, value in usual.items())


def _nearest(results: Results, factor: str, one: str, chosen: list[str]) -> str:
    """Return the candidate that differs from a configuration in the fewest settings beside the factor."""
    others = [setting for setting in factors(results, [one, *chosen]) if setting != factor]
    labels = [setting_labels(results, setting, [one, *chosen]) for setting in others]
    return min(chosen, key=lambda name: sum(found.get(name) != found.get(one) for found in labels))
