"""Which settings can be followed: a factor that varies within one sweep while the others can be held fixed."""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from numbers import Real
from typing import Any

from lorafile.analysis.common.factors import equal_settings, factors, setting_labels, setting_values, sweeps
from lorafile.analysis.common.format import amount
from lorafile.analysis.common.scores import averages, best, methods
from lorafile.results.results import Results


@dataclass(frozen=True)
class Trend:
    """One factor within one sweep.

    :ivar values: configuration -> its value of the factor as a label, in the spec's order, numbers ascending
    :ivar numbers: configuration -> its value, where the factor is a number everywhere
    :ivar series: configuration -> the other settings that vary in the sweep, as one label; empty where none does
    :ivar tied: settings that change together with the factor
    :ivar added: configuration of another sweep -> why it is here
    """

    sweep: str
    factor: str
    values: dict[str, str]
    numbers: dict[str, float]
    series: dict[str, str]
    tied: tuple[str, ...]
    added: dict[str, str]


PARAMETERS = "trainable_parameters"


def by_parameters(results: Results) -> list[Trend]:
    """Return every sweep along the trainable parameters of its configurations, where these differ."""
    counts = averages(results, PARAMETERS)
    found = []
    for sweep, members in sweeps(results).items():
        known = [name for name in members if counts.get(name)]
        varied = {factor: setting_labels(results, factor, known) for factor in factors(results, known)}
        alike = [pair for pair in combinations(known, 2) if counts[pair[0]] == counts[pair[1]]]
        # what differs between configurations of the same size is no matter of size: it is held fixed
        free = [key for key, labels in varied.items() if any(labels.get(one) != labels.get(two) for one, two in alike)]
        series = {name: ", ".join(f"{key}={varied[key].get(name, '–')}" for key in free) for name in known}
        tied = tuple(key for key in varied if key not in free)
        groups = Counter(series.values())
        kept = sorted((name for name in known if groups[series[name]] > 1), key=lambda name: counts[name])
        if len({counts[name] for name in kept}) > 1:
            values = {name: amount("count", counts[name]) for name in kept}
            numbers = {name: counts[name] for name in kept}
            found.append(Trend(sweep, PARAMETERS, values, numbers, {name: series[name] for name in kept}, tied, {}))
    return found


def trends(results: Results) -> list[Trend]:
    """Return every factor that varies within a sweep while the sweep's other factors can be held fixed."""
    found = []
    for sweep, members in sweeps(results).items():
        varied = factors(results, list(members))
        for factor in varied:
            trend = _trend(results, sweep, factor, varied, members)
            if trend is not None and len(set(trend.values.values())) > 1:
                found.append(trend)
    return found


def _trend(results: Results, sweep: str, factor: str, varied: list[str], members: dict[str, str]) -> Trend | None:
    values = _labels(results, factor, members)
    if factor == "method":
        added = _chosen_lora(results, values)
        values |= dict.fromkeys(added, "best lora" if "lora" in values.values() else "lora")
        return Trend(sweep, factor, values, {}, dict.fromkeys(values, ""), (), added)
    others = {other: setting_labels(results, other, list(values)) for other in varied if other != factor}
    tied = tuple(other for other, labels in others.items() if follows(labels, values))
    free = {other: labels for other, labels in others.items() if other not in tied}
    first = [other for other in varied if other in (factor, *tied)]
    if first[0] != factor:
        return None  # what is tied is told once, under the setting that comes first
    added = {} if free or tied else _neighbours(results, factor, values)
    values |= setting_labels(results, factor, list(added))
    series = {name: ", ".join(f"{key}={labels.get(name, '–')}" for key, labels in free.items()) for name in values}
    groups = Counter(series.values())
    kept = [name for name, group in series.items() if groups[group] > 1]
    numbers = plain_numbers(setting_values(results, factor, kept))
    places = [plain_numbers(setting_values(results, other, kept)) for other in free]
    if numbers:
        kept.sort(key=lambda name: (numbers[name], *(place.get(name, 0.0) for place in places)))
    series = {name: series[name] for name in kept}
    return Trend(sweep, factor, {name: values[name] for name in kept}, numbers, series, tied, added)


def _neighbours(results: Results, factor: str, values: dict[str, str]) -> dict[str, str]:
    """Return configurations of other sweeps that differ from this sweep's in the factor only, at values it lacks."""
    everyone = methods(results)
    alike = list(equal_settings(results, factor).values())
    mine = {tuple(labels.get(name) for labels in alike) for name in values}
    outside = setting_labels(results, factor, [name for name in everyone if name not in values])
    found: dict[str, str] = {}
    for name, value in outside.items():
        same = tuple(labels.get(name) for labels in alike) in mine and everyone[name] in {
            everyone[one] for one in values
        }
        if same and value not in (*values.values(), *(outside[one] for one in found)):
            found[name] = f"{value} is {name}, which differs from this sweep in {factor} only."
    return found


def _labels(results: Results, factor: str, members: dict[str, str]) -> dict[str, str]:
    """Return configuration -> its value of the factor, in the spec's own word (`attention`) where its name has one."""
    labels = setting_labels(results, factor, list(members))
    start = f"{factor.rpartition('.')[2]}="
    for name, short in members.items():
        if name in labels and short.startswith(start) and "," not in short:
            labels[name] = short.removeprefix(start)
    return labels if len(set(labels.values())) == len(labels) else setting_labels(results, factor, list(members))


def _chosen_lora(results: Results, values: dict[str, str]) -> dict[str, str]:
    """Return the LoRA configuration that is best on validation, where it is not in the sweep already."""
    chosen = best(results, [name for name, method in methods(results).items() if method == "lora"])
    if chosen is None or chosen in values:
        return {}
    label = "best lora" if "lora" in values.values() else "lora"
    return {chosen: f"{label} is {chosen}, the LoRA configuration with the best mean on validation."}


def follows(other: dict[str, str], values: dict[str, str]) -> bool:
    """Return whether each value of a factor comes with one value of the other setting, and the reverse."""
    pairs = {(values[name], label) for name, label in other.items()}
    return len(pairs) == len({left for left, _ in pairs}) == len({right for _, right in pairs})


def plain_numbers(values: dict[str, Any]) -> dict[str, float]:
    """Return values as numbers; nothing where one of them is none."""
    plain = all(isinstance(value, Real) and not isinstance(value, bool) for value in values.values())
    return {name: float(value) for name, value in values.items()} if plain else {}
