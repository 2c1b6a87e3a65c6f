"""The tables of a spec, typed. The JSON schema, the spec reference and every check of a name come from here."""

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from lorafile.specs.tables.analysis import AnalysisTable, ClaimTable, PublishedTable, StageTable, VerdictTable
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.evaluate import EvaluateTable, ProfileTable
from lorafile.specs.tables.lora import LoraSettings
from lorafile.specs.tables.methods import (
    AdaLoraSettings,
    Ia3Settings,
    LnTuningSettings,
    LoHaSettings,
    LoKrSettings,
    MethodName,
    PromptTuningSettings,
    VeraSettings,
)
from lorafile.specs.tables.quantizations import Quantization
from lorafile.specs.tables.tracking import TrackingTable
from lorafile.specs.tables.train import FullTable, NoneTable, TrainTable
from lorafile.specs.values import (
    ONE_LINE,
    RELATIVE_DIRECTORY,
    Name,
    Natural,
    Number,
    Positive,
    PositiveNumber,
    Settings,
    Text,
)

Dtype = Literal["float32", "bfloat16", "float16"]
AttentionName = Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]


class StudyTable(Settings):
    """What the study is called, what it asks, and under which seeds every configuration is repeated."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=ONE_LINE)] = Field(
        description="The study's name in state and report."
    )
    question: str = Field(default="", description="The question that the report answers first.")
    seeds: Annotated[list[Natural], Field(min_length=1)] = Field(
        default=[42, 1337, 2024], description="One replicate of every trained configuration for each seed."
    )
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        default=1,
        description="How many times every trained configuration runs under its first seed: more than once shows what "
        "the machine alone changes; no repeat counts as a seed.",
    )
    registered: bool = Field(
        default=False,
        description="Record the git commit and the spec in it with each attempt; the report says which claims, margins "
        "and analyses stood there before the first one.",
    )


class ModelTable(Settings):
    """The base model that every adapter sits on."""

    path: Text = Field(description="A hub id, a local directory, or `builtin:facts-llama`.")
    revision: str | None = Field(
        default=None, description="Branch, tag or commit on the hub; the lock keeps the commit."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Type of the base weights; `auto` is the checkpoint's own."
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code that the model's repository ships.")
    task_type: Literal["CAUSAL_LM", "SEQ_CLS"] = Field(
        default="CAUSAL_LM",
        description="As PEFT calls it: a model that writes text, or one with a head that scores classes.",
    )
    num_labels: Positive | None = Field(
        default=None,
        description="Outputs of a head (`SEQ_CLS`), as transformers calls it. 1 is a regression: labels are numbers, "
        "and the loss is their mean squared error. Unset: one for each class of the data.",
    )
    attn_implementation: AttentionName = Field(
        default="auto", description="How attention is computed, as transformers calls it; `auto` is its choice."
    )
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(
        default=None,
        description="Spread a base that is larger than one GPU over all of them; changes no key, and cannot vary.",
    )

    @property
    def is_regression(self) -> bool:
        """Whether a head predicts a number."""
        return self.task_type == "SEQ_CLS" and self.num_labels == 1


class InspectTable(Settings):
    """Look inside every trained adapter: parameters, norms, ranks, and drift of the representations; absent: do not."""

    examples: Positive = Field(
        default=64, description="Held-out examples whose hidden states are compared with the base's (CKA)."
    )


class TruncateTable(Settings):
    """Cut every trained LoRA to smaller ranks by SVD, and evaluate it again, without training; absent: do not."""

    ranks: Annotated[list[Positive], Field(min_length=1)] = Field(
        description="Ranks to keep; one that is not smaller than an adapter's own is left out for it."
    )


class MergeTable(Settings):
    """Merge every trained adapter into its base, and compare the merged model with the attached one; absent: do not.

    On a base in half precision a change of batch alone sets the gate (docs/reporting.md), and not these tolerances.
    """

    dtypes: Annotated[list[Dtype], Field(min_length=1)] = Field(
        default=["float32", "bfloat16", "float16"], description="Types that the merged weights are stored in."
    )
    examples: Positive = Field(default=64, description="Held-out examples on which the two are compared.")
    max_log_loss_difference: Number | None = Field(
        default=0.01, description="Gate: the log loss may move by so many nats per token (0.01: perplexity by 1 %)."
    )
    min_argmax_agreement: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=0.99, description="Gate: the least share of held-out tokens at which both rank the same token first."
    )
    max_logit_difference: PositiveNumber | None = Field(
        default=None,
        description="Gate: the largest difference of any logit. Absent: not gated, one outlier decides it.",
    )


class SweepTable(BaseModel):
    """Settings that vary: each value is a list of candidates, and the lists multiply."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: Name | None = Field(default=None, description="First part of its configurations' names; unset: its settings.")
    match: Literal["rank", "parameters"] = Field(
        default="rank",
        description="What its LoRA placements have in common: the rank, or the number of trainable parameters of its "
        "first one, for which each other's rank is solved.",
    )
    zip: list[str] = Field(default=[], description="Settings that vary together, candidate by candidate.")
    configurations: list[dict[str, Any]] = Field(default=[], description="Points by hand: settings, perhaps a `name`.")
    exclude: list[dict[str, Any]] = Field(default=[], description="Points to leave out: settings with values.")


class ReportTable(Settings):
    """Where the report goes."""

    title: Text | None = Field(default=None, description="Title of the page; the study's name otherwise.")
    path: str = Field(
        default="report",
        pattern=RELATIVE_DIRECTORY,
        description="Directory of `report.html` and `RESULTS.md`, next to the spec.",
    )


class SpecTables(Settings):
    """A study spec."""

    study: StudyTable
    model: ModelTable
    data: DataTable
    method: MethodName = Field(
        default="lora",
        description="A method of PEFT, `head` (linear probing: a classification head is trained, its base frozen), "
        "`full` fine-tuning, or `none` (untuned).",
    )
    lora: LoraSettings = Field(default=LoraSettings())
    ia3: Ia3Settings = Field(default=Ia3Settings())
    vera: VeraSettings = Field(default=VeraSettings())
    adalora: AdaLoraSettings = Field(default=AdaLoraSettings())
    loha: LoHaSettings = Field(default=LoHaSettings())
    lokr: LoKrSettings = Field(default=LoKrSettings())
    prompt_tuning: PromptTuningSettings = Field(default=PromptTuningSettings())
    ln_tuning: LnTuningSettings = Field(default=LnTuningSettings())
    full: FullTable = FullTable()
    none: NoneTable = NoneTable()
    quantization: Quantization = Field(
        default="none",
        description="A name, or the settings of a quantization config of transformers: `BitsAndBytesConfig`, or with "
        "`quant_method` another one's. `none`: as the checkpoint is.",
    )
    train: TrainTable = TrainTable()
    evaluate: EvaluateTable = EvaluateTable()
    profile: ProfileTable = ProfileTable()
    inspect: InspectTable | None = None
    truncate: TruncateTable | None = None
    merge: MergeTable | None = None
    sweep: list[SweepTable] = Field(default=[], description="Which configurations there are.")
    stage: list[StageTable] = Field(default=[], description="More seeds, to decide what a first look left open.")
    verdict: VerdictTable = VerdictTable()
    analysis: list[AnalysisTable] = Field(default=[], description="Which questions the report answers.")
    claim: list[ClaimTable] = Field(default=[], description="Sentences that each report checks.")
    reference: list[PublishedTable] = Field(default=[], description="Published figures, drawn next to the study's own.")
    report: ReportTable = ReportTable()
    tracking: TrackingTable = TrackingTable()


def table_at(path: tuple[str | int, ...], root: type[BaseModel] = SpecTables) -> type[BaseModel] | None:
    """Return the table at a path of a spec, `()` being the spec itself; None where none of fixed names stands."""
    if not path:
        return root
    field = field_at(path, root)
    return None if field is None else _table_of(field.annotation)


def field_at(path: tuple[str | int, ...], root: type[BaseModel] = SpecTables) -> FieldInfo | None:
    """Return what is known of a setting: `("data", "split", "train")`, `("analysis", 0, "kind")`.

    :param root: the whole document's table, where it is no spec
    """
    names = [part for part in path if isinstance(part, str)]
    table: type[BaseModel] | None = root
    field, named = None, False
    for name in names:
        if named:  # the user's own name of a table among tables, such as a budget's
            named = False
            continue
        field = table.model_fields.get(name) if table else None
        table = _table_of(field.annotation) if field else None
        named = field is not None and get_origin(field.annotation) is dict and table is not None
    return field


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table that a type is, holds in a list, or allows next to other kinds of value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((table for part in get_args(annotation) if (table := _table_of(part))), None)
