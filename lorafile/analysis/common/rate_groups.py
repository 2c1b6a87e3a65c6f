"""Which configurations differ in nothing but their learning rate."""

from dataclasses import dataclass
from math import nan

import pandas as pd

from lorafile.analysis.common.factors import equal_settings, setting_values, tuned
from lorafile.results.results import Results, grouped, missing, rows_of

RATE, RANK = "train.learning_rate", "lora.r"


@dataclass(frozen=True)
class RateGroup:
    """Trained configurations that differ in the learning rate only.

    :ivar label: what they share: the settings that vary elsewhere in the study
    :ivar rates: configuration -> learning rate, ascending
    """

    label: str
    rates: dict[str, float]


def groups(results: Results) -> list[RateGroup]:
    """Return the trained configurations, grouped by every setting that varies except the learning rate.

    Those whose rate was tuned are described with their candidates, by `tune`.
    """
    chosen = tuned(results)
    trained = [name for name, method in results.methods.items() if method != "none" and RATE not in chosen[name]]
    labels = equal_settings(results, RATE, trained)
    peaks = peak_rates(results, trained)
    shared = grouped(
        (tuple((key, known[name]) for key, known in labels.items() if name in known), name) for name in trained
    )
    rate_groups = []
    for settings, members in shared.items():
        rates = {name: peaks[name] for name in sorted(members, key=peaks.__getitem__)}
        rate_groups.append(RateGroup(_label(settings, labels) if len(rates) > 1 else next(iter(rates)), rates))
    return rate_groups


def _label(settings: tuple[tuple[str, str], ...], labels: dict[str, dict[str, str]]) -> str:
    """Return a group's settings, leaving out those at the value that most of the study has."""
    usual = {factor: pd.Series(list(values.values())).mode().iloc[0] for factor, values in labels.items() if values}
    shown = [(factor, value) for factor, value in settings if value != usual[factor] or factor == RANK]
    return ", ".join(f"{factor.rsplit('.', 1)[-1]}={value}" for factor, value in shown) or "all other settings equal"


def peak_rates(results: Results, among: list[str]) -> dict[str, float]:
    """Return configuration -> learning rate: the setting where it varies, else the curves' highest, else NaN."""
    peaks: dict[str, float] = {}
    for name, value in rows_of(results.curves, "configuration", "learning_rate"):
        if value is not None:
            peaks[str(name)] = max(peaks.get(str(name), 0.0), float(value))
    if RATE in results.configurations.columns:
        settings = setting_values(results, RATE, among)
        peaks |= {name: float(value) for name, value in settings.items() if not missing(value)}
    return {name: peaks.get(name, nan) for name in among}
