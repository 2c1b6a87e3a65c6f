"""The tables of measuring: metrics of held-out examples, and cost."""

from typing import Annotated, Literal

from pydantic import Field

from lorafile.specs.values import Natural, Positive, Settings

Metric = Literal["log_loss", "perplexity", "token_accuracy", "exact_match"]


class EvaluateTable(Settings):
    """What is measured on held-out examples."""

    metrics: Annotated[list[Metric], Field(min_length=1)] = Field(
        default=["log_loss", "perplexity", "token_accuracy"], description="Computed from stored predictions."
    )
    primary: Metric | None = Field(
        default=None, description="The metric that the study decides by; the first one otherwise."
    )
    max_new_tokens: Positive = Field(default=64, description="The most tokens of a greedy answer (`exact_match`).")
    per_device_eval_batch_size: Positive = Field(
        default=16, description="Examples at once; changes no result and no key."
    )


class ProfileTable(Settings):
    """How cost is measured: alone on the device, in a fresh process."""

    enabled: bool = Field(default=True, description="Measure time, memory and latency of each configuration.")
    warmup_steps: Natural = Field(default=3, description="Training steps before the timed ones.")
    steps: Positive = Field(default=10, description="Timed training steps.")
    new_tokens: Positive = Field(default=16, description="Tokens generated for each latency measurement.")
    repeats: Positive = Field(default=5, description="Latency measurements, of which the median is kept.")
