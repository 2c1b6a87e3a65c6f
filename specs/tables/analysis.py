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
QUALITIES = ("trainable_parameters",)  # what a trend may follow in addition to the settings that vary
Margin = Annotated[str, Field(pattern=MARGIN)] | PositiveNumber
Deviation = Annotated[str, Field(pattern=POINTS)] | PositiveNumber
Amount = Annotated[str, Field(pattern=AMOUNT)]
Measure = Cost | Metric


class ExpectedTable(Settings):
    """How far figures are expected to vary, where no finished run tells."""

    runs: Deviation = Field(
        description="Standard deviation of one run's figure between seeds: `1.2pt` (percentage points), or a number in "
        "the metric's unit."
    )
    examples: Deviation | None = Field(
        default=None,
        description="Standard deviation over examples of the difference between two configurations: `45pt`. Unset: "
        "what right and wrong answers may have at most; of other metrics nothing is known.",
    )


class VerdictTable(Settings):
    """What counts as a difference: the error that verdicts may make, and how small a difference does not matter."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="How often the study's verdicts may be wrong, over all comparisons and stages."
    )
    margin: Margin | None = Field(
        default=None,
        description="A difference that does not matter: `1pt` (percentage points), `1%` of the baseline, or a number "
        "in the metric's unit; an analysis may have its own.",
    )
    keep: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="The share of alpha that is kept for stages with more seeds (`lora plan --resolve`)."
    )
    expect_sd: Deviation | ExpectedTable | None = Field(
        default=None,
        description="The standard deviation of one run's figure between seeds that you expect (`1.2pt`), or a table "
        "with `runs` and `examples`: `lora plan` says what the study can detect, where no finished run tells.",
    )
    waive: list[str] = Field(
        default=[],
        description="What may differ between compared configurations apart from the compared setting, and is marked: "
        "settings, `environment`, `imported`; and lost runs without which a claim may be supported: `diverged`, "
        "`out-of-memory`.",
    )


class StageTable(Settings):
    """More seeds for some configurations, planned after a first look from the variances alone."""

    seeds: Annotated[list[Natural], Field(min_length=1)] = Field(description="Seeds that are new to the study.")
    configurations: Annotated[list[Text], Field(min_length=1)] | None = Field(
        default=None, description="Names of those that run under them; otherwise all that a seed changes."
    )


class Limits(Settings):
    """What a configuration may cost; what is unset may be anything."""

    train_memory: Size | None = Field(
        default=None, description="Peak memory of training: `24GB` (10^9), `7.5GiB` (2^30 bytes)."
    )
    train_memory_reserved: Size | None = Field(
        default=None, description="The same as the allocator holds it; on a CPU the process's resident size."
    )
    generate_memory: Size | None = Field(default=None, description="Peak memory of generating.")
    adapter_size: Size | None = Field(default=None, description="Bytes of what is saved, for example `50MB`.")
    train_time: Duration | None = Field(default=None, description="Time of one training run, for example `2h`.")
    step_time: Duration | None = Field(default=None, description="Time of one training step.")
    first_token_latency: Duration | None = Field(default=None, description="Time to the first token: `200ms`.")
    token_latency: Duration | None = Field(default=None, description="Time per token, adapter attached: `30ms`.")
    merged_token_latency: Duration | None = Field(default=None, description="Time per token, adapter merged.")
    trainable_share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Trainable parameters as a share of all: 0.003 is 0.3 %."
    )


class BudgetTable(Limits):
    """What a configuration may cost and has to be able to do; what is unset may be anything."""

    trainable_parameters: Positive | None = Field(default=None, description="Trainable parameters.")
    servable: Literal["vllm", "tgi"] | None = Field(
        default=None, description="A server that has to take the adapter as it is, next to the base."
    )
    prefer: Cost | None = Field(default=None, description="The cost to keep low; `train_memory` if unset.")


class AnalysisTable(Settings):
    """A question to the results; absent: every analysis that has something to say."""

    kind: Kind | None = Field(default=None, description="Which analysis; or `ask` a question by its name.")
    ask: Question | None = Field(default=None, description="One of the seven questions that every study can ask.")
    name: Name | None = Field(default=None, description="What a `[[claim]]` calls it.")
    metric: Metric | None = Field(default=None, description="The primary one otherwise.")
    factor: str | None = Field(default=None, description="`compare`, `trend`, `effects`: the setting to compare along.")
    by: str | None = Field(default=None, description="`effects`: the second setting.")
    baseline: dict[str, Any] | Text | None = Field(
        default=None,
        description="`compare`: what the others are compared with: a configuration's name, or settings such as "
        "`{ lora.r = 16 }`; unset: the one with the spec's own settings, else the first.",
    )
    pairs: Literal["baseline", "all"] = Field(
        default="baseline", description="`compare`: with the baseline, or all pairs."
    )
    margin: Margin | None = Field(default=None, description="`compare`, `recommend`: as `verdict.margin`.")
    waive: list[str] = Field(default=[], description="`compare`: settings that may differ as well; the pair is marked.")
    measures: Annotated[list[Measure], Field(min_length=2, max_length=3)] | None = Field(
        default=None,
        description="`pareto`: two or three metrics or costs; unset: the primary metric and `train_memory`.",
    )
    budgets: dict[Name, Size | BudgetTable] = Field(
        default={},
        description="`recommend`: a name and what may be spent: training memory (`8GB`), or a table of limits "
        "(`train_memory`, `generate_memory`, `adapter_size`, `train_time`, `step_time`, `first_token_latency`, "
        "`token_latency`, `merged_token_latency`, `trainable_parameters`, `trainable_share`), with `servable` (`vllm`, "
        "`tgi`) and `prefer`, the cost by which one is cheaper than another.",
    )
    profiles: list[Profile] = Field(default=[], description="`recommend`: budgets that ship.")
    file: Annotated[str, Field(pattern=r"^[^\x00-\x1f]*\.py$")] | None = Field(
        default=None, description="`own`: a Python file, relative to the spec, with `analyse(results)`."
    )


class ClaimTable(Limits):
    """A sentence stated elsewhere, in a README for example, and what has to hold for it at each report."""

    text: Text = Field(description="The sentence, as it stands in a README or a paper.")
    one: Text = Field(description="The configuration that it is about, by its name; cost limits are its, too.")
    other: Text | None = Field(default=None, description="The configuration that it is compared with.")
    analysis: Name | None = Field(
        default=None, description="The `name` of a `compare` that decides it (metric, margin)."
    )
    is_: Literal["better", "worse", "equivalent", "non-inferior"] | None = Field(
        default=None, alias="is", description="What the verdict on `one` against `other` has to be."
    )
    at_most_below: Margin | None = Field(
        default=None,
        description="At most so much worse than `other`, as a margin is written: `3pt`. "
        'The same as `is = "non-inferior"` within that margin.',
    )
    metric: Metric | None = Field(default=None, description="The primary one otherwise.")
    margin: Margin | None = Field(default=None, description="As `verdict.margin`.")
    waive: list[Literal["diverged", "out-of-memory"]] = Field(
        default=[], description="Lost runs without which it may be supported; otherwise they leave it undecided."
    )
    at_least: float | None = Field(default=None, description="Lower limit on the metric of `one`; shares as fractions.")
    at_most: float | None = Field(default=None, description="Upper limit on the metric of `one`; shares as fractions.")


class PublishedTable(Settings):
    """A published figure: drawn next to the study's own, and never tested against it."""

    name: Text = Field(description="What it is the figure of.")
    value: float = Field(description="In the metric's base unit: shares as fractions of one.")
    metric: Metric | None = Field(default=None, description="The primary one otherwise.")
    n: Positive | None = Field(
        default=None, description="The number of examples that it comes from; of a share they give its standard error."
    )
    error: PositiveNumber | None = Field(default=None, description="Its standard error, in the same unit.")
    sd: PositiveNumber | None = Field(
        default=None,
        description="The standard deviation between its runs (seeds), in the same unit: `lora plan` says from it what "
        "the study can detect, where no finished run tells.",
    )
    seeds: Annotated[int, Field(ge=2)] | None = Field(default=None, description="The number of runs that `sd` is from.")
    source: Text = Field(description="Where it was published.")
    costs: dict[Cost, Amount | PositiveNumber] = Field(
        default={},
        description='What it cost, where that was published: `{ train_memory = "22GB" }`; `pareto` draws it there.',
    )
    settings: dict[str, Any] = Field(
        default={}, description="Its settings, such as `{ lora.r = 32 }`, at which `trend` draws it."
    )
