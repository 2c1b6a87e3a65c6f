"""What analyses read from results: scores over seeds, what became of runs, and cost."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from lorafile.analysis.common.base import ColumnKind
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, cells, rows_of
from lorafile.units import listing, plural

if TYPE_CHECKING:
    import pandas as pd

# The columns of `configurations` that are not settings; `method` is both.
FIXED = (
    *("configuration", "sweep", "aliases", "trained", "replicates", "done", "outcomes", "rank", "alpha", "shots"),
    "tuned",
)
CENSORED = ("diverged", "out-of-memory")  # how a run ends that says something against its configuration
LOST = (*CENSORED, "failed", "interrupted", "missing")
_WORDS = {"missing": "not run yet", "out-of-memory": "out of memory"}
LOST_WORDS = tuple(_WORDS.get(outcome, outcome) for outcome in LOST)
TRAINING = ("train_memory", "train_memory_reserved", "adapter_size", "trainable_parameters", "train_time", "step_time")


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

    @classmethod
    def of(cls, figures: list[float], wanted: int, lost: str) -> "Score":
        """Return the score of the figures that there are."""
        mean = fmean(figures) if figures else nan
        return cls(mean, stdev(figures) if len(figures) > 1 else nan, len(figures), wanted, lost)

    @property
    def known(self) -> bool:
        """Return whether any seed has a figure."""
        return self.n > 0


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
    rows = rows_of(runs, "configuration", "seed", "outcome", name)
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
    for configuration, wanted in results.setting("replicates").items():
        found, counts = figures.get(configuration, []), ended.get(configuration, Counter())
        count = int(wanted) if wanted is not None else counts.total()
        table[configuration] = Score.of(found, max(count, len(found)), lost(counts))
    return table


@lru_cache(maxsize=8)
def outcomes(results: Results) -> dict[str, Counter[str]]:
    """Return configuration -> how many of its runs ended in which way; not to be changed by who asks."""
    found: dict[str, Counter[str]] = {}
    for label, outcome in rows_of(results.runs, "configuration", "outcome"):
        found.setdefault(str(label), Counter())[str(outcome or "missing")] += 1
    return found


def lost(counts: Counter[str]) -> str:
    """Return `2 diverged, 1 failed`, or nothing where every run is done."""
    others = [outcome for outcome in counts if outcome not in (*LOST, "done")]
    return ", ".join(
        f"{counts[outcome]} {_WORDS.get(outcome, outcome)}" for outcome in (*LOST, *others) if counts[outcome]
    )


def same_runs(results: Results, name: str) -> set[str]:
    """Return the configurations that consist of a configuration's own runs: a tuned one, and what was chosen for it."""
    keys: dict[str, set[Any]] = {}
    for label, key in rows_of(results.runs, "configuration", "key"):
        keys.setdefault(str(label), set()).add(key)
    mine = keys.get(name, set()) - {None, ""}
    return {other for other, found in keys.items() if mine and found == mine}


def references(results: Results) -> dict[str, str]:
    """Return configuration -> `untuned` or `full fine-tuning`: what every sweep is held against.

    Of several full fine-tunings the best on validation stands for all of them.
    """
    by_method = results.methods
    full = [name for name, method in by_method.items() if method == "full"]
    chosen = best(results, full) or (full[0] if full else None)
    shots = results.setting("shots")
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
            sign = 1 if more_is_better(metric) else -1
            return max(known, key=lambda name: sign * table[name].mean)
    return None


def profiles(results: Results) -> "tuple[pd.DataFrame, list[str]]":
    """Return one profile for each configuration, of the device that most of them have, and the other devices."""
    table = results.profiles
    devices = Counter(str(device) for device in cells(table, "device"))
    if len(devices) < 2:
        return _first(table), []
    device, _ = devices.most_common(1)[0]
    chosen = [str(other) == device for other in cells(table, "device")]
    return _first(table[chosen]), [other for other in devices if other != device]


def _first(table: "pd.DataFrame") -> "pd.DataFrame":
    if "configuration" not in table.columns:
        return table
    return table.drop_duplicates("configuration").reset_index(drop=True)


def profiled(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a column of its profile, where there is one."""
    table, _ = profiles(results)
    rows = rows_of(table, "configuration", name)
    return {str(label): float(value) for label, value in rows if label is not None and value is not None}


def averages(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> mean over finished seeds of a column of `runs`, where there is one."""
    return {label: score.mean for label, score in scores(results, name).items() if score.known}


def completeness(results: Results) -> list[str]:
    """Return what did not finish, failures first; nothing where every run is done."""
    rows = list(rows_of(results.runs, "configuration", "seed", "outcome"))
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


@dataclass(frozen=True)
class CostMeasure:
    """One measure: where it is stored, what it is called, and its unit."""

    source: str  # runs (mean over seeds) or profiles
    column: str
    title: str
    kind: ColumnKind


COSTS: dict[str, CostMeasure] = {  # the names that specs.tables.analysis allows
    "train_memory": CostMeasure("profiles", "train_allocated_bytes", "peak training memory", "bytes"),
    "train_memory_reserved": CostMeasure("profiles", "train_reserved_bytes", "peak reserved training memory", "bytes"),
    "generate_memory": CostMeasure("profiles", "generate_allocated_bytes", "peak memory while generating", "bytes"),
    "adapter_size": CostMeasure("runs", "adapter_bytes", "saved size", "bytes"),
    "trainable_parameters": CostMeasure("runs", "trainable_parameters", "trainable parameters", "count"),
    "train_time": CostMeasure("runs", "seconds", "training time", "seconds"),
    "step_time": CostMeasure("profiles", "train_step_seconds", "time of a training step", "seconds"),
    "first_token_latency": CostMeasure(
        "profiles", "first_token_seconds", "time to the first token, attached", "seconds"
    ),
    "token_latency": CostMeasure("profiles", "token_seconds", "time per token, attached", "seconds"),
    "merged_token_latency": CostMeasure("profiles", "merged_token_seconds", "time per token, merged", "seconds"),
}


def price_of(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a measure of cost, with nothing for training what is not trained."""
    free = [label for label, method in results.methods.items() if method == "none"] if name in TRAINING else []
    return cost_of(results, name) | dict.fromkeys(free, 0.0)


def cost_of(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a measure of cost, for those that have one."""
    cost = COSTS[name]
    return averages(results, cost.column) if cost.source == "runs" else profiled(results, cost.column)
