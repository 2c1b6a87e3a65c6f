"""The tables of a spec, typed. The JSON schema, the spec reference and every check of a name come from here."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lorafile.specs.snapshot import BnbSettings, LoraSettings
from lorafile.specs.values import (
    ONE_LINE,
    Name,
    Natural,
    Number,
    Positive,
    PositiveNumber,
    Settings,
    Share,
    SplitSize,
    Text,
)

Metric = Literal["log_loss", "perplexity", "token_accuracy", "exact_match"]
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
Method = Literal["lora", "full", "none"]
QuantizationName = Literal["none", "int8", "nf4", "fp4"]


class StudyTable(Settings):
    """What the study is called, what it asks, and under which seeds every configuration is repeated."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=ONE_LINE)] = Field(
        description="The study's name in state and report."
    )
    question: str = Field(default="", description="The question that the report answers first.")
    seeds: Annotated[list[Natural], Field(min_length=1)] = Field(
        default=[42, 1337, 2024], description="One replicate of every trained configuration for each seed."
    )


class ModelTable(Settings):
    """The base model that every adapter sits on."""

    path: Text = Field(description="A hub id, a local directory, or `builtin:facts-llama`.")
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub id; the lock keeps the commit."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Type of the base weights; `auto` is the checkpoint's own."
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code that the model's repository ships.")


class TemplateTable(Settings):
    """A template of one's own: `{column}` stands for the column's text."""

    prompt: str = Field(description="What the model reads, for example `Q: {question}\\nA:`.")
    completion: str = Field(description="What it should answer, for example ` {answer}`.")


class SplitTable(Settings):
    """Which examples are for training, for choosing (validation), and for the final figures (test)."""

    train: SplitSize | None = Field(
        default=None, description="A count, a fraction, or a slice such as `train[:80%]` of the data's own split."
    )
    validation: SplitSize | None = Field(
        default=None, description="As `train`: a count, a fraction, or a slice. Drawn before the train split."
    )
    test: SplitSize | None = Field(
        default=None, description="As `train`: a count, a fraction, or a slice. Drawn first of all."
    )


class DataTable(Settings):
    """The examples, and how they become text."""

    path: Text = Field(
        description="A hub id; a JSONL, JSON, CSV, TSV or Parquet file; a directory with one file for each split; or "
        "`builtin:facts`."
    )
    name: str | None = Field(default=None, description="The configuration of a hub data set that has several.")
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of a hub id; the lock keeps the commit."
    )
    format: Literal["auto", "alpaca", "chat", "completion", "text"] = Field(
        default="auto",
        description="`alpaca` (instruction, input, output), `chat` (messages, through the tokenizer's chat template), "
        "`completion` (prompt, completion), `text`; `auto` tells by the columns.",
    )
    template: TemplateTable | None = Field(default=None, description="A template of one's own, instead of a format.")
    columns: dict[str, str] = Field(default={}, description="Renames: the format's field = the column that holds it.")
    split: SplitTable = Field(
        default=SplitTable(), description="Sizes of the splits; absent: the data's own, or 80/10/10 %."
    )
    split_seed: Natural = Field(default=0, description="Seed of the draw of splits; study seeds never move it.")
    max_length: Annotated[int, Field(ge=2, lt=2**31)] = Field(
        default=512, description="The most tokens of one example."
    )
    too_long: Literal["error", "drop", "truncate"] = Field(
        default="error",
        description="What happens to an example of more tokens; what is dropped or cut is counted in the report.",
    )
    completion_only_loss: bool = Field(default=True, description="Leave prompt tokens out of the loss.")


class TrainTable(Settings):
    """How an adapter is trained: names and meaning of transformers' `TrainingArguments`; no others are accepted."""

    num_train_epochs: PositiveNumber = Field(default=3.0, description="Passes over the train split.")
    max_steps: Annotated[int, Field(ge=-1, lt=2**31)] = Field(
        default=-1, description="Optimizer steps; above 0 it overrides the epochs."
    )
    per_device_train_batch_size: Positive = Field(default=8, description="Examples in one forward pass.")
    gradient_accumulation_steps: Positive = Field(default=1, description="Forward passes for each optimizer step.")
    learning_rate: PositiveNumber = Field(default=2e-4, description="Peak learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        default="linear", description="Shape of the rate after warm-up."
    )
    warmup_steps: Number = Field(default=0.0, description="Steps of warm-up; below 1 a fraction of all.")
    warmup_ratio: Share | None = Field(
        default=None, description="The old name of a fractional `warmup_steps`, which replaced it."
    )
    weight_decay: Number = Field(default=0.0, description="AdamW's decoupled decay (no bias, no norm).")
    adam_beta1: Share = Field(default=0.9, description="AdamW's first decay rate.")
    adam_beta2: Share = Field(default=0.999, description="AdamW's second decay rate.")
    adam_epsilon: PositiveNumber = Field(default=1e-8, description="AdamW's epsilon.")
    max_grad_norm: Number = Field(default=1.0, description="Gradient clipping norm; 0 is none.")
    bf16: bool = Field(default=False, description="Autocast to bfloat16.")
    fp16: bool = Field(default=False, description="Autocast to float16, with loss scaling.")
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations: less memory, more time.")


class FullTable(Settings):
    """Settings of `[train]` that full fine-tuning has at values of its own."""

    learning_rate: PositiveNumber = Field(
        default=2e-5, description="A tenth of LoRA's: its best rate is about ten times that of full fine-tuning."
    )
    num_train_epochs: PositiveNumber | None = None
    max_steps: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    per_device_train_batch_size: Positive | None = None
    gradient_accumulation_steps: Positive | None = None
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] | None = None
    warmup_steps: Number | None = None
    warmup_ratio: Share | None = None
    weight_decay: Number | None = None
    max_grad_norm: Number | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    gradient_checkpointing: bool | None = None


class NoneTable(Settings):
    """The untuned row has no settings of its own."""


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


class SweepTable(BaseModel):
    """Settings that vary: each value is a list of candidates, and the lists multiply."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: Name | None = Field(
        default=None, description="First part of its configurations' names; the settings' names otherwise."
    )
    zip: list[str] = Field(default=[], description="Settings that vary together, candidate by candidate.")
    configurations: list[dict[str, Any]] = Field(
        default=[], description="Points by hand: settings, and a `name` if wanted."
    )
    exclude: list[dict[str, Any]] = Field(
        default=[], description="Points to leave out: settings and the value of each."
    )


class AnalysisTable(Settings):
    """A question to the results; absent: every analysis that has something to say."""

    kind: Literal["summary", "trend", "pareto", "cost", "curves", "rates"] = Field(description="Which analysis.")
    metric: Metric | None = Field(default=None, description="The primary one otherwise.")
    factor: str | None = Field(default=None, description="`trend`: the setting along which quality is followed.")
    cost: Cost | None = Field(default=None, description="`pareto`: the measure on the other axis; else `train_memory`.")


class ReportTable(Settings):
    """Where the report goes."""

    title: Text | None = Field(default=None, description="Title of the page; the study's name otherwise.")
    path: Text = Field(default="report", description="Directory of `report.html` and `RESULTS.md`, beside the spec.")


class SpecTables(Settings):
    """A study spec."""

    study: StudyTable
    model: ModelTable
    data: DataTable
    method: Method = Field(default="lora", description="`lora`, `full` fine-tuning, or `none`: the untuned row.")
    lora: LoraSettings = Field(default=LoraSettings())
    full: FullTable = FullTable()
    none: NoneTable = NoneTable()
    quantization: QuantizationName | BnbSettings = Field(
        default="none", description="A name, or BitsAndBytesConfig's own settings."
    )
    train: TrainTable = TrainTable()
    evaluate: EvaluateTable = EvaluateTable()
    profile: ProfileTable = ProfileTable()
    sweep: list[SweepTable] = Field(default=[], description="Which configurations there are.")
    analysis: list[AnalysisTable] = Field(default=[], description="Which questions the report answers.")
    report: ReportTable = ReportTable()
