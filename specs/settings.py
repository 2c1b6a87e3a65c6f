"""The tables of a spec, typed. The JSON schema, the spec reference and every check of a name come from here."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from lorafile.specs.snapshot import BnbSettings, LoraSettings, Settings

Metric = Literal["log_loss", "perplexity", "token_accuracy", "exact_match"]
SplitSize = PositiveInt | Annotated[float, Field(gt=0, le=1)] | str
Method = Literal["lora", "full", "none"]
QuantizationName = Literal["none", "int8", "nf4", "fp4"]


class StudyTable(Settings):
    """What the study is called, what it asks, and under which seeds every configuration is repeated."""

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="The study's name in state and report.")
    question: str = Field("", description="The question that the report answers first.")
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)] = Field(
        [42, 1337, 2024], description="One replicate of every trained configuration for each seed."
    )


class ModelTable(Settings):
    """The base model that every adapter sits on."""

    path: Annotated[str, Field(min_length=1)] = Field(
        description="A hub id, a local directory, or `builtin:facts-llama`."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; the lock keeps the commit.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of the base weights; `auto` is the checkpoint's own."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository ships.")


class TemplateTable(Settings):
    """A template of one's own: `{column}` stands for the column's text."""

    prompt: str = Field(description="What the model reads, for example `Q: {question}\\nA:`.")
    completion: str = Field(description="What it should answer, for example ` {answer}`.")


class SplitTable(Settings):
    """Which examples are for training, for choosing (validation), and for the final figures (test)."""

    train: SplitSize | None = Field(None, description="A count, a fraction, or a slice such as `train[:80%]`.")
    validation: SplitSize | None = Field(None, description="As `train`. Counts are drawn before the train split's.")
    test: SplitSize | None = Field(None, description="As `train`. Counts are drawn first of all.")


class DataTable(Settings):
    """The examples, and how they become text."""

    path: Annotated[str, Field(min_length=1)] = Field(
        description="A hub id; a JSONL, JSON, CSV, TSV or Parquet file; a directory with one file for each split; or "
        "`builtin:facts`."
    )
    name: str | None = Field(None, description="The configuration of a hub data set that has several.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id; the lock keeps the commit.")
    format: Literal["auto", "alpaca", "chat", "completion", "text"] = Field(
        "auto",
        description="`alpaca` (instruction, input, output), `chat` (messages, through the tokenizer's chat template), "
        "`completion` (prompt, completion), `text`; `auto` tells by the columns.",
    )
    template: TemplateTable | None = Field(None, description="A template of one's own, instead of a format.")
    columns: dict[str, str] = Field({}, description="Renames: the format's field = the column that holds it.")
    split: SplitTable = Field(SplitTable(), description="Sizes of the splits; absent: the data's own, or 80/10/10 %.")
    split_seed: Annotated[int, Field(ge=0)] = Field(0, description="Seed of the draw of splits; study seeds never move it.")
    max_length: Annotated[int, Field(ge=2)] = Field(512, description="The most tokens of one example.")
    too_long: Literal["error", "drop", "truncate"] = Field(
        "error", description="What happens to an example of more tokens; what is dropped or cut is counted in the report."
    )
    completion_only_loss: bool = Field(True, description="Leave prompt tokens out of the loss.")


class TrainTable(Settings):
    """How an adapter is trained: names and meaning of transformers' `TrainingArguments`; no others are accepted."""

    num_train_epochs: Annotated[float, Field(gt=0)] = Field(3.0, description="Passes over the train split.")
    max_steps: Annotated[int, Field(ge=-1)] = Field(-1, description="Optimizer steps; above 0 it overrides the epochs.")
    per_device_train_batch_size: PositiveInt = Field(8, description="Examples in one forward pass.")
    gradient_accumulation_steps: PositiveInt = Field(1, description="Forward passes for each optimizer step.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(2e-4, description="Peak learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="Shape of the rate after warm-up."
    )
    warmup_steps: Annotated[float, Field(ge=0)] = Field(0.0, description="Steps of warm-up; below 1 a fraction of all.")
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="The old name of a fractional `warmup_steps`, which replaced it."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's decoupled decay (no bias, no norm).")
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="AdamW's first decay rate.")
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.999, description="AdamW's second decay rate.")
    adam_epsilon: Annotated[float, Field(gt=0)] = Field(1e-8, description="AdamW's epsilon.")
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(1.0, description="Gradient clipping norm; 0 is none.")
    bf16: bool = Field(False, description="Autocast to bfloat16.")
    fp16: bool = Field(False, description="Autocast to float16, with loss scaling.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, more time.")


class FullTable(Settings):
    """Settings of `[train]` that full fine-tuning has at values of its own."""

    learning_rate: Annotated[float, Field(gt=0)] = Field(
        2e-5, description="A tenth of LoRA's: its best rate is about ten times that of full fine-tuning."
    )
    num_train_epochs: Annotated[float, Field(gt=0)] | None = None
    max_steps: Annotated[int, Field(ge=-1)] | None = None
    per_device_train_batch_size: PositiveInt | None = None
    gradient_accumulation_steps: PositiveInt | None = None
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] | None = None
    warmup_steps: Annotated[float, Field(ge=0)] | None = None
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    max_grad_norm: Annotated[float, Field(ge=0)] | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    gradient_checkpointing: bool | None = None


class NoneTable(Settings):
    """The untuned row has no settings of its own."""


class EvaluateTable(Settings):
    """What is measured on held-out examples."""

    metrics: Annotated[list[Metric], Field(min_length=1)] = Field(
        ["log_loss", "perplexity", "token_accuracy"], description="Computed from stored predictions."
    )
    primary: Metric | None = Field(None, description="The metric that the study decides by; the first one otherwise.")
    max_new_tokens: PositiveInt = Field(64, description="The most tokens of a greedy answer (`exact_match`).")
    per_device_eval_batch_size: PositiveInt = Field(16, description="Examples at once; changes no result and no key.")


class ProfileTable(Settings):
    """How cost is measured: alone on the device, in a fresh process."""

    enabled: bool = Field(True, description="Measure time, memory and latency of each configuration.")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(3, description="Training steps before the timed ones.")
    steps: PositiveInt = Field(10, description="Timed training steps.")
    new_tokens: PositiveInt = Field(16, description="Tokens generated for each latency measurement.")
    repeats: PositiveInt = Field(5, description="Latency measurements, of which the median is kept.")


class SweepTable(BaseModel):
    """Settings that vary: each value is a list of candidates, and the lists multiply."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str | None = Field(None, description="First part of its configurations' names; the settings' names otherwise.")
    zip: list[str] = Field([], description="Settings that vary together, candidate by candidate.")
    configurations: list[dict[str, Any]] = Field([], description="Points by hand: settings, and a `name` if wanted.")
    exclude: list[dict[str, Any]] = Field([], description="Points to leave out: settings and the value of each.")


class AnalysisTable(Settings):
    """A question to the results; absent: every analysis that has something to say."""

    kind: Literal["summary", "trend", "pareto", "cost", "curves", "rates"] = Field(description="Which analysis.")
    metric: Metric | None = Field(None, description="The primary one otherwise.")
    factor: str | None = Field(None, description="`trend`: the setting along which quality is followed.")
    cost: str | None = Field(None, description="`pareto`: the measure on the other axis, for example `train_memory`.")


class ReportTable(Settings):
    """Where the report goes."""

    title: str | None = Field(None, description="Title of the page; the study's name otherwise.")
    path: str = Field("report", description="Directory of `report.html` and `RESULTS.md`, beside the spec.")


class SpecTables(Settings):
    """A study spec."""

    study: StudyTable
    model: ModelTable
    data: DataTable
    method: Method = Field("lora", description="`lora`, `full` fine-tuning, or `none`: the untuned row.")
    lora: LoraSettings = Field(LoraSettings())  # type: ignore[valid-type]
    full: FullTable = FullTable()
    none: NoneTable = NoneTable()
    quantization: QuantizationName | BnbSettings = Field(  # type: ignore[valid-type]
        "none", description="A name, or BitsAndBytesConfig's own settings."
    )
    train: TrainTable = TrainTable()
    evaluate: EvaluateTable = EvaluateTable()
    profile: ProfileTable = ProfileTable()
    sweep: list[SweepTable] = Field([], description="Which configurations there are.")
    analysis: list[AnalysisTable] = Field([], description="Which questions the report answers.")
    report: ReportTable = ReportTable()
