"""The measures of cost that a study can be judged by, each with its source and its unit."""

from dataclasses import dataclass

from lorafile.analysis.common.base import ColumnKind
from lorafile.analysis.common.scores import averages, methods, profiled
from lorafile.results.results import Results


@dataclass(frozen=True)
class Cost:
    """One measure: where it is stored, what it is called, and its unit."""

    source: str  # runs (mean over seeds) or profiles
    column: str
    title: str
    kind: ColumnKind


COSTS: dict[str, Cost] = {  # the names that specs.analysis_settings.Cost allows
    "train_memory": Cost("profiles", "train_allocated_bytes", "peak training memory", "bytes"),
    "train_memory_reserved": Cost("profiles", "train_reserved_bytes", "peak reserved training memory", "bytes"),
    "generate_memory": Cost("profiles", "generate_allocated_bytes", "peak memory while generating", "bytes"),
    "adapter_size": Cost("runs", "adapter_bytes", "saved size", "bytes"),
    "trainable_parameters": Cost("runs", "trainable_parameters", "trainable parameters", "count"),
    "train_time": Cost("runs", "seconds", "training time", "seconds"),
    "step_time": Cost("profiles", "train_step_seconds", "time of a training step", "seconds"),
    "first_token_latency": Cost("profiles", "first_token_seconds", "time to the first token, attached", "seconds"),
    "token_latency": Cost("profiles", "token_seconds", "time per token, attached", "seconds"),
    "merged_token_latency": Cost("profiles", "merged_token_seconds", "time per token, merged", "seconds"),
}


TRAINING = ("train_memory", "train_memory_reserved", "adapter_size", "trainable_parameters", "train_time", "step_time")


def price_of(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a measure of cost, with nothing for training what is not trained."""
    free = [label for label, method in methods(results).items() if method == "none"] if name in TRAINING else []
    return cost_of(results, name) | dict.fromkeys(free, 0.0)


def cost_of(results: Results, name: str) -> dict[str, float]:
    """Return configuration -> a measure of cost, for those that have one."""
    cost = COSTS[name]
    return averages(results, cost.column) if cost.source == "runs" else profiled(results, cost.column)
