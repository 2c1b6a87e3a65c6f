"""What analyses read from results: scores over seeds, what became of runs, and cost."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

from lorafile.analysis.common.base import ColumnKind
from lorafile.engine.metrics.registry import more_is_better
from lorafile.results.results import Results, cells, grouped, row_dicts, rows_of
from lorafile.results.timings import Disturbance, disturbances
from lorafile.statistics.probabilities import t_quantile
from lorafile.units import listing, plural

if TYPE_CHECKING:
    import pandas as pd

# The columns of `configurations` that are not settings; `method` is both.
FIXED = (
    *("configuration", "sweep", "aliases", "trained", "replicates", "done"),
    *("outcomes", "rank", "alpha", "shots", "tuned"),
)
CENSORED = ("diverged", "out-of-memory")  # how a run ends that says something against its configuration
TIME = "seconds"  # the column of `runs` that holds training times
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


@lru_cache(maxsize=64)
def values(results: Results, name: str) -> dict[tuple[str, Any], float]:
    """Return (configuration, seed) -> a column's figure, for each finished run that has one; not to be changed."""
    rows = rows_of(results.runs, "configuration", "seed", "outcome", name)
    figures = ((label, seed, value) for label, seed, outcome, value in rows if outcome == "done" and value is not None)
    return {(label, seed): float(value) for label, seed, value in figures}


@lru_cache(maxsize=64)
def scores(results: Results, name: str) -> dict[str, Score]:
    """Return each configuration's score on a column of `runs`, in the spec's order; not to be changed."""
    figures = grouped((configuration, value) for (configuration, _), value in values(results, name).items())
    ended = outcomes(results)
    table = {}
    for configuration, wanted in results.setting("replicates").items():
        own, counts = figures.get(configuration, []), ended.get(configuration, Counter())
        count = int(wanted) if wanted is not None else counts.total()
        table[configuration] = Score.of(own, max(count, len(own)), lost(counts))
    return table


@lru_cache(maxsize=8)
def outcomes(results: Results) -> dict[str, Counter[str]]:
    """Return configuration -> how many of its runs ended in which way; not to be changed by who asks."""
    rows = rows_of(results.runs, "configuration", "outcome")
    ended = grouped((str(label), str(outcome or "missing")) for label, outcome in rows)
    return {name: Counter(words) for name, words in ended.items()}


def lost(counts: Counter[str]) -> str:
    """Return `2 diverged, 1 failed`, or nothing where every run is done."""
    others = [outcome for outcome in counts if outcome not in (*LOST, "done")]
    return ", ".join(
        f"{counts[outcome]} {_WORDS.get(outcome, outcome)}" for outcome in (*LOST, *others) if counts[outcome]
    )


def same_runs(results: Results, name: str) -> set[str]:
    """Return the configurations that consist of a configuration's own runs: a tuned one, and what was chosen for it."""
    pairs = grouped((str(label), key) for label, key in rows_of(results.runs, "configuration", "key"))
    keys = {label: set(members) for label, members in pairs.items()}
    own = keys.get(name, set()) - {None, ""}
    return {other for other, members in keys.items() if own and members == own}


def references(results: Results) -> dict[str, str]:
    """Return configuration -> `untuned` or `full fine-tuning`: what every sweep is compared with.

    Of several full fine-tunings the best on validation stands for all of them.
    """
    by_method = results.methods
    full = [name for name, method in by_method.items() if method == "full"]
    chosen = best(results, full) or (full[0] if full else None)
    shots = results.setting("shots")
    untuned = [name for name, method in by_method.items() if method == "none"]
    roles = {name: f"untuned, {shots[name]:.0f} shots" if shots[name] else "untuned" for name in untuned}
    return roles | ({chosen: "full fine-tuning"} if chosen else {})


def best(results: Results, among: list[str], metric: str | None = None) -> str | None:
    """Return the configuration with the best mean: on validation, elsewhere on test where that is all there is."""
    metric = metric or results.primary
    for split in ("validation", "test"):
        table = scores(results, f"{split}.{metric}")
        if scored := [name for name in among if name in table and table[name].known]:
            sign = 1 if more_is_better(metric) else -1
            return max(scored, key=lambda name: sign * table[name].mean)
    return None


def profiles(results: Results) -> "tuple[pd.DataFrame, list[str]]":
    """Return one profile for each configuration, of the device that most of them have, and the other devices."""
    table, others = results.profiles, list[str]()
    devices = [str(device) for device in cells(table, "device")]
    if len(set(devices)) > 1:
        most, _ = Counter(devices).most_common(1)[0]
        table, others = table[[device == most for device in devices]], [*dict.fromkeys(devices)]
        others.remove(most)
    if "configuration" in table.columns:
        table = table.drop_duplicates("configuration").reset_index(drop=True)
    return table, others


def profiled(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a column of its profile, where there is one."""
    rows = rows_of(profiles(results)[0], "configuration", name)
    return {str(label): float(value) for label, value in rows if label is not None and value is not None}


@lru_cache(maxsize=8)
def disturbed(results: Results) -> dict[str, Disturbance]:
    """Return configuration -> why the times of its profile are not to be trusted; not to be changed by who asks."""
    return disturbances(row_dicts(profiles(results)[0]))


@lru_cache(maxsize=64)
def averages(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> mean over finished seeds of a column of `runs`, where there is one; of times the median.

    One run on a busy machine moves a median of three not at all. Not to be changed by who asks.
    """
    if name == TIME:
        taken = grouped((label, value) for (label, _), value in values(results, name).items())
        return {label: median(own) for label, own in taken.items()}
    return {label: score.mean for label, score in scores(results, name).items() if score.known}


def completeness(results: Results) -> list[str]:
    """Return what did not finish, failures first; nothing where every run is done."""
    rows = list(rows_of(results.runs, "configuration", "seed", "outcome"))
    if not rows:
        return ["No run has been recorded yet."]
    ended = grouped(
        (str(outcome or "missing"), str(label) if seed is None else f"{label} under seed {int(seed)}")
        for label, seed, outcome in rows
    )
    if set(ended) == {"done"}:
        return [f"All {plural(len(rows), 'run')} finished."]
    order = [key for key in (*LOST, *sorted(set(ended) - {*LOST, "done"})) if key in ended]
    parts = [f"{len(ended[key])} {_WORDS.get(key, key)} ({listing(ended[key], 4)})" for key in order]
    return [f"Of {plural(len(rows), 'run')}, {listing(parts, len(parts))}; {len(ended.get('done', []))} finished."]


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
    "step_time": CostMeasure("profiles", "train_step_seconds", "training step time", "seconds"),
    "first_token_latency": CostMeasure("profiles", "first_token_seconds", "time to first token, attached", "seconds"),
    "token_latency": CostMeasure("profiles", "token_seconds", "time per token, attached", "seconds"),
    "merged_token_latency": CostMeasure("profiles", "merged_token_seconds", "time per token, merged", "seconds"),
}


def question_lengths(results: Results) -> dict[str, float]:
    """Return configuration -> how many times the tokens of the shortest ones its held-out questions have."""
    counts = averages(results, "question_tokens")
    least = min(counts.values(), default=0.0)
    return {name: count / least for name, count in counts.items()} if least else {}


def price_of(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a measure of cost, with nothing for training what is not trained."""
    free = [label for label, method in results.methods.items() if method == "none"] if name in TRAINING else []
    return cost_of(results, name) | dict.fromkeys(free, 0.0)


def cost_of(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a measure of cost, for those that have one; no time that says nothing."""
    cost = COSTS[name]
    values = averages(results, cost.column) if cost.source == "runs" else profiled(results, cost.column)
    says_nothing = unmeasurable(results, name)
    return {label: value for label, value in values.items() if label not in says_nothing}


def unmeasurable(results: Results, name: str) -> dict[str, str]:
    """Return configuration -> why a time that was taken says nothing; nothing for a measure that is no time.

    A profile's time says nothing where its machine did other work meanwhile; a training time where the 95 % interval of
    its mean over seeds includes everything from zero on.
    """
    cost = COSTS.get(name)
    if cost is None or cost.kind != "seconds":
        return {}
    if cost.source == "profiles":
        return dict.fromkeys(disturbed(results), "the machine was busy with other work")
    return {
        label: f"the 95 % interval over {time.n} seeds includes zero"
        for label, time in scores(results, cost.column).items()
        if time.n > 1 and t_quantile(0.975, time.n - 1) * time.spread / time.n**0.5 >= time.mean
    }


def unmeasured(results: Results, name: str, label: str) -> str:
    """Return why a configuration has no figure of a cost: `was not measured`, or why it is not measurable."""
    reason = unmeasurable(results, name).get(label)
    return f"is not measurable here: {reason}" if reason else "was not measured"
