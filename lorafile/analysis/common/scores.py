"""What analyses read from results: scores over seeds, what became of runs, and cost."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from lorafile.analysis.common.format import missing
from lorafile.results.results import Results
from lorafile.units import listing, plural

# The columns of `configurations` that are not settings; `method` is both.
FIXED = (
    *("configuration", "sweep", "aliases", "trained", "replicates", "done", "outcomes", "rank", "alpha", "shots"),
    "tuned",
)
LOST = ("diverged", "out-of-memory", "failed", "interrupted", "missing")
_WORDS = {"missing": "not run yet", "out-of-memory": "out of memory"}
LOST_WORDS = tuple(_WORDS.get(outcome, outcome) for outcome in LOST)


@dataclass(frozen=True)
class Score:
    """A metric of one configuration over the seeds that finished.

    :ivar spread: sample standard deviation over seeds; NaN below two of them
    :ivar n: seeds with a figure
    :ivar wanted: seeds that the study wants
    :ivar lost: what became of the others, for example `1 diverged`
    """

    mean: float
    spread: float
    n: int
    wanted: int
    lost: str

    @property
    def known(self) -> bool:
        """Return whether any seed has a figure."""
        return self.n > 0


def cells(frame: pd.DataFrame, name: str) -> list[Any]:
    """Return a column's cells, None for each that is missing; a column that is not there is all missing."""
    if name not in frame.columns:
        return [None] * len(frame)
    return [None if missing(value) else value for value in frame[name].tolist()]


def split_of(results: Results, metric: str) -> str:
    """Return the split that figures are shown on: test, unless fewer runs have it than have validation."""
    have = {split: len(values(results, f"{split}.{metric}")) for split in ("test", "validation")}
    return "test" if have["test"] and have["test"] >= have["validation"] else "validation"


def values(results: Results, name: str) -> dict[tuple[str, Any], float]:
    """Return (configuration, seed) -> a column's figure, for each finished run that has one."""
    return dict(_values(results, name))


@lru_cache(maxsize=64)
def _values(results: Results, name: str) -> dict[tuple[str, Any], float]:
    runs = results.runs
    rows = zip(*(cells(runs, key) for key in ("configuration", "seed", "outcome", name)), strict=True)
    return {
        (label, seed): float(value) for label, seed, outcome, value in rows if outcome == "done" and value is not None
    }


def scores(results: Results, name: str) -> dict[str, Score]:
    """Return each configuration's score on a column of `runs`, in the spec's order."""
    return dict(_scores(results, name))


@lru_cache(maxsize=64)
def _scores(results: Results, name: str) -> dict[str, Score]:
    figures: dict[str, list[float]] = {}
    for (configuration, _), value in values(results, name).items():
        figures.setdefault(configuration, []).append(value)
    ended = outcomes(results)
    table = {}
    for configuration, wanted in zip(names(results), cells(results.configurations, "replicates"), strict=True):
        found, counts = figures.get(configuration, []), ended.get(configuration, Counter())
        mean = fmean(found) if found else nan
        spread = stdev(found) if len(found) > 1 else nan
        count = int(wanted) if wanted is not None else counts.total()
        table[configuration] = Score(mean, spread, len(found), max(count, len(found)), lost(counts))
    return table


@lru_cache(maxsize=8)
def outcomes(results: Results) -> dict[str, Counter[str]]:
    """Return configuration -> how many of its runs ended in which way; not to be changed by who asks."""
    found: dict[str, Counter[str]] = {}
    for label, outcome in zip(cells(results.runs, "configuration"), cells(results.runs, "outcome"), strict=True):
        found.setdefault(str(label), Counter())[str(outcome or "missing")] += 1
    return found


def lost(counts: Counter[str]) -> str:
    """Return `2 diverged, 1 failed`, or nothing where every run is done."""
    others = [outcome for outcome in counts if outcome not in (*LOST, "done")]
    return ", ".join(
        f"{counts[outcome]} {_WORDS.get(outcome, outcome)}" for outcome in (*LOST, *others) if counts[outcome]
    )


@lru_cache(maxsize=8)
def names(results: Results) -> list[str]:
    """Return the configurations' names, in the spec's order; not to be changed by who asks."""
    return [str(name) for name in cells(results.configurations, "configuration")]


def same_runs(results: Results, name: str) -> set[str]:
    """Return the configurations that consist of a configuration's own runs: a tuned one, and what was chosen for it."""
    keys: dict[str, set[Any]] = {}
    for label, key in zip(cells(results.runs, "configuration"), cells(results.runs, "key"), strict=True):
        keys.setdefault(str(label), set()).add(key)
    mine = keys.get(name, set()) - {None, ""}
    return {other for other, found in keys.items() if mine and found == mine}


@lru_cache(maxsize=8)
def methods(results: Results) -> dict[str, str]:
    """Return configuration -> method, `lora` where it is missing; not to be changed by who asks."""
    rows = zip(names(results), cells(results.configurations, "method"), strict=True)
    return {name: str(method or "lora") for name, method in rows}


def references(results: Results) -> dict[str, str]:
    """Return configuration -> `untuned` or `full fine-tuning`: what every sweep is held against.

    Of several full fine-tunings the best on validation stands for all of them.
    """
    by_method = methods(results)
    full = [name for name, method in by_method.items() if method == "full"]
    chosen = best(results, full) or (full[0] if full else None)
    shots = dict(zip(names(results), cells(results.configurations, "shots"), strict=True))
    found = {
        name: f"untuned, {shots[name]:.0f} shots" if shots[name] else "untuned"
        for name, method in by_method.items()
        if method == "none"
    }
    return found | ({chosen: "full fine-tuning"} if chosen else {})


def best(results: Results, among: list[str], metric: str | None = None) -> str | None:
    """Return the configuration with the best mean: on validation, elsewhere on test where that is all there is."""
    metric = metric or results.primary
    for split in ("validation", "test"):
        table = scores(results, f"{split}.{metric}")
        known = [name for name in among if name in table and table[name].known]
        if known:
            sign = 1 if results.better_is_more(metric) else -1
            return max(known, key=lambda name: sign * table[name].mean)
    return None


def profiles(results: Results) -> tuple[pd.DataFrame, list[str]]:
    """Return one profile for each configuration, of the device that most of them have, and the other devices."""
    table = results.profiles
    devices = Counter(str(device) for device in cells(table, "device"))
    if len(devices) < 2:
        return _first(table), []
    device, _ = devices.most_common(1)[0]
    chosen = [str(other) == device for other in cells(table, "device")]
    return _first(table[chosen]), [other for other in devices if other != device]


def _first(table: pd.DataFrame) -> pd.DataFrame:
    if "configuration" not in table.columns:
        return table
    return table.drop_duplicates("configuration").reset_index(drop=True)


def profiled(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a column of its profile, where there is one."""
    table, _ = profiles(results)
    rows = zip(cells(table, "configuration"), cells(table, name), strict=True)
    return {str(label): float(value) for label, value in rows if label is not None and value is not None}


def averages(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> mean over finished seeds of a column of `runs`, where there is one."""
    return {label: score.mean for label, score in scores(results, name).items() if score.known}


def completeness(results: Results) -> list[str]:
    """Return what did not finish, failures first; nothing where every run is done."""
    rows = list(zip(*(cells(results.runs, key) for key in ("configuration", "seed", "outcome")), strict=True))
    if not rows:
        return ["No run has been recorded yet."]
    ended: dict[str, list[str]] = {}
    for label, seed, outcome in rows:
        ended.setdefault(str(outcome or "missing"), []).append(_where(label, seed))
    if set(ended) == {"done"}:
        return [f"All {plural(len(rows), 'run')} finished."]
    order = [key for key in (*LOST, *sorted(set(ended) - {*LOST, "done"})) if key in ended]
    parts = [f"{len(ended[key])} {_WORDS.get(key, key)} ({listing(ended[key], 4)})" for key in order]
    return [f"Of {plural(len(rows), 'run')}, {listing(parts, len(parts))}; {len(ended.get('done', []))} finished."]


def _where(configuration: Any, seed: Any) -> str:
    return f"{configuration}" if seed is None else f"{configuration} under seed {int(seed)}"
