"""The tables of concluding: what counts as a difference, the questions, the claims, and published figures."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lorafile.specs.tables.evaluate import Metric
from lorafile.specs.values import (
    AMOUNT,
    MARGIN,
    POINTS,
    Duration,
    Name,
    Natural,
    Positive,
    PositiveNumber,
    Settings,
    Size,
    Text,
)

Cost = Literal[
    "train_memory",
    "train_memory_reserved",
    "generate_memory",
    "adapter_size",
    "trainable_parameters",
    "train_time",
    "step_time",
    "first_token_latency",
    "token_latency",
    "merged_token_latency",
]
PROFILED = (  # the costs that a profile measures, and no training run
    *("train_memory", "train_memory_reserved", "generate_memory", "step_time"),
    *("first_token_latency", "token_latency", "merged_token_latency"),
)
Kind = Literal[
    "summary",
    "compare",
    "recommend",
    "tune",
    "trend",
    "effects",
    "pareto",
    "noise",
    "confounds",
    "cost",
    "curves",
    "rates",
    "truncation",
    "inspect",
    "merge",
    "forgetting",
    "lm_eval",
    "prompts",
    "data",
    "own",
]
Question = Literal[
    "rank", "placement", "quantization", "best-for-my-gpu", "inference-speed", "lora-or-full", "real-or-noise"
]
Profile = Literal["consumer-8GB", "workstation-24GB", "best-quality", "cheapest"]
# Which settings of an [[analysis]] each kind reads; a question asked by its name reads a margin and a metric.
MARGINED = ("metric", "margin")
READS: dict[str, tuple[str, ...]] = {
    "summary": ("metric",),
    "compare": ("metric", "margin", "factor", "baseline", "pairs", "waive"),
    "recommend": ("metric", "margin", "budgets", "profiles"),
    "tune": ("metric",),
    "trend": ("metric", "margin", "factor"),
    "effects": ("metric", "factor", "by"),
    "pareto": ("metric", "measures"),
    "forgetting": ("metric",),
    "noise": ("metric",),
    "rates": ("metric",),
    "truncation": ("metric",),
    "own": ("file",),
}
# What these kinds show is measured only where the spec asks for it: kind -> the table or setting that does.
NEEDS = {
    "truncation": "truncate",
    "inspect": "inspect",
    "merge": "merge",
    "forgetting": "evaluate.reference",
    "lm_eval": "evaluate.lm_eval_tasks",
    "prompts": "evaluate.prompts",
}
QUALITIES = ("trainable_parameters",)  # what a trend may follow in addition to the settings that vary
Margin = Annotated[str, Field(pattern=MARGIN)] | PositiveNumber
Deviation = Annotated[str, Field(pattern=POINTS)] | PositiveNumber
Amount = Annotated[str, Field(pattern=AMOUNT)]
Measure = Cost | Metric


class ExpectedTable(Settings):
    """How much results are expected to vary, used while there are no finished runs."""

    runs: Deviation = Field(
        description="Standard deviation of a run's result between seeds: `1.2pt` (percentage points), or a number in "
        "the metric's unit."
    )
    examples: Deviation | None = Field(
        default=None,
        description="Standard deviation over examples of the difference between two configurations: `45pt`. Unset: "
        "the largest that right and wrong answers can have; for other metrics, unknown.",
    )


class VerdictTable(Settings):
    """What counts as a difference: the error rate of verdicts, and the margin of differences that do not matter."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="The error rate of the study's verdicts, over all comparisons and stages."
    )
    margin: Margin | None = Field(
        default=None,
        description="A difference that does not matter: `1pt` (percentage points), `1%` of the baseline, or a number "
        "in the metric's unit. An analysis can set its own.",
    )
    keep: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="The share of alpha reserved for stages with more seeds (`lora plan --resolve`)."
    )
    expect_sd: Deviation | ExpectedTable | None = Field(
        default=None,
        description="The standard deviation between seeds that you expect (`1.2pt`), or a table with `runs` and "
        "`examples`. While there are no finished runs, `lora plan` uses it to show what the study can detect.",
    )
    waive: list[str] = Field(
        default=[],
        description="Other differences to allow (and mark) between compared configurations: settings, `environment`, "
        "`imported`; and lost runs that do not prevent a claim from being supported: `diverged`, `out-of-memory`.",
    )


class StageTable(Settings):
    """More seeds for some configurations, planned after a first look from the variances alone."""

    seeds: Annotated[list[Natural], Field(min_length=1)] = Field(description="Seeds that the study has not used yet.")
    configurations: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None, description="Names of the configurations to run with them. Unset: all that depend on a seed."
    )


class Limits(Settings):
    """Cost limits for a configuration; unset costs are unlimited."""

    train_memory: Size | None = Field(
        default=None, description="Peak memory during training: `24GB` (10^9), `7.5GiB` (2^30 bytes)."
    )
    train_memory_reserved: Size | None = Field(
        default=None, description="Peak memory reserved by the allocator; on a CPU, the resident size of the process."
    )
    generate_memory: Size | None = Field(default=None, description="Peak memory during generation.")
    adapter_size: Size | None = Field(default=None, description="Size of the saved files, for example `50MB`.")
    train_time: Duration | None = Field(default=None, description="Time of one training run, for example `2h`.")
    step_time: Duration | None = Field(default=None, description="Time of one training step.")
    first_token_latency: Duration | None = Field(default=None, description="Time to first token: `200ms`.")
    token_latency: Duration | None = Field(default=None, description="Time per token, adapter attached: `30ms`.")
    merged_token_latency: Duration | None = Field(default=None, description="Time per token, adapter merged.")
    trainable_share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Trainable parameters as a share of all: 0.003 is 0.3 %."
    )


class BudgetTable(Limits):
    """Limits and requirements for a configuration; unset ones do not apply."""

    trainable_parameters: Positive | None = Field(default=None, description="Trainable parameters.")
    servable: Literal["vllm", "tgi"] | None = Field(
        default=None, description="A server that must be able to serve the adapter unmerged, next to the base."
    )
    prefer: Cost | None = Field(default=None, description="The cost to minimize; `train_memory` if unset.")


class AnalysisTable(Settings):
    """A question about the results. Without any, the report has every analysis that applies."""

    kind: Kind | None = Field(
        default=None, description="The kind of analysis. Alternatively, `ask` a question by name."
    )
    ask: Question | None = Field(default=None, description="One of seven questions that apply to every study.")
    name: Name | None = Field(default=None, description="The name that a `[[claim]]` refers to.")
    metric: Metric | None = Field(default=None, description="Unset: the primary metric.")
    factor: str | None = Field(default=None, description="`compare`, `trend`, `effects`: the setting to compare along.")
    by: str | None = Field(default=None, description="`effects`: the second setting.")
    baseline: dict[str, Any] | Text | None = Field(
        default=None,
        description="`compare`: the configuration that the others are compared with: its name, or settings such as "
        "`{ lora.r = 16 }`. Unset: the one with the spec's own settings, or else the first.",
    )
    pairs: Literal["baseline", "all"] = Field(
        default="baseline", description="`compare`: compare each with the baseline, or all pairs."
    )
    margin: Margin | None = Field(default=None, description="`compare`, `recommend`: like `verdict.margin`.")
    waive: list[str] = Field(
        default=[], description="`compare`: other settings that may differ; such pairs are marked."
    )
    measures: Annotated[list[Measure], Field(min_length=2, max_length=3)] | None = Field(
        default=None,
        description="`pareto`: two or three metrics or costs. Unset: the primary metric and `train_memory`.",
    )
    budgets: dict[Name, Size | BudgetTable] = Field(
        default={},
        description="`recommend`: budgets by name: training memory (`8GB`), or a table of limits "
        "(`train_memory`, `generate_memory`, `adapter_size`, `train_time`, `step_time`, `first_token_latency`, "
        "`token_latency`, `merged_token_latency`, `trainable_parameters`, `trainable_share`), with `servable` (`vllm`, "
        "`tgi`) and `prefer`, the cost that decides which is cheaper.",
    )
    profiles: list[Profile] = Field(default=[], description="`recommend`: built-in budgets.")
    file: Annotated[str, Field(pattern=r"^[^\x00-\x1f]*\.py$")] | None = Field(
        default=None, description="`own`: a Python file, relative to the spec, with `analyse(results)`."
    )


class ClaimTable(Limits):
    """A sentence stated elsewhere, for example in a README, and the condition that every report checks for it."""

    text: Text = Field(description="The sentence as written in a README or a paper.")
    one: Text = Field(description="The name of the configuration that the claim is about. Cost limits apply to it.")
    other: Text | None = Field(default=None, description="The name of the configuration that it is compared with.")
    analysis: Name | None = Field(
        default=None, description="The `name` of the `compare` analysis that decides it (metric, margin)."
    )
    is_: Literal["better", "worse", "equivalent", "non-inferior"] | None = Field(
        default=None, alias="is", description="The required verdict on `one` compared with `other`."
    )
    at_most_below: Margin | None = Field(
        default=None,
        description="Worse than `other` by at most this margin, for example `3pt`. "
        'The same as `is = "non-inferior"` with that margin.',
    )
    metric: Metric | None = Field(default=None, description="Unset: the primary metric.")
    margin: Margin | None = Field(default=None, description="Like `verdict.margin`.")
    waive: list[Literal["diverged", "out-of-memory", "trainer_checks"]] = Field(
        default=[],
        description="Kinds of lost runs to accept, and `trainer_checks` that failed. Any others leave the claim "
        "undecided.",
    )
    at_least: float | None = Field(default=None, description="Lower limit on the metric of `one`; shares as fractions.")
    at_most: float | None = Field(default=None, description="Upper limit on the metric of `one`; shares as fractions.")


class PublishedTable(Settings):
    """A published result: shown next to the study's own, but never tested against it."""

    name: Text = Field(description="The name of the published result.")
    value: float = Field(description="The value in the metric's base unit: shares as fractions of one.")
    metric: Metric | None = Field(default=None, description="Unset: the primary metric.")
    n: Positive | None = Field(
        default=None, description="The number of examples behind it. For a share, this gives the standard error."
    )
    error: PositiveNumber | None = Field(default=None, description="Its standard error, in the same unit.")
    sd: PositiveNumber | None = Field(
        default=None,
        description="The standard deviation between its runs (seeds), in the same unit. While there are no finished "
        "runs, `lora plan` uses it to show what the study can detect.",
    )
    seeds: Annotated[int, Field(ge=2)] | None = Field(default=None, description="The number of runs behind `sd`.")
    source: Text = Field(description="Where it was published.")
    costs: dict[Cost, Amount | PositiveNumber] = Field(
        default={},
        description='Published costs, for example `{ train_memory = "22GB" }`; `pareto` plots it at these costs.',
    )
    settings: dict[str, Any] = Field(
        default={}, description="Its settings, such as `{ lora.r = 32 }`; `trend` plots it at this value."
    )
