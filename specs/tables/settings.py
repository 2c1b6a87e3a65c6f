"""The tables of a spec, typed. The JSON schema, the spec reference and every check of a name come from here."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from lorafile.specs.tables.analysis import AnalysisTable, ClaimTable, PublishedTable, StageTable, VerdictTable
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.evaluate import EvaluateTable, ProfileTable
from lorafile.specs.tables.methods import METHODS, Later, MethodName, MethodTables, method_defaults
from lorafile.specs.tables.quantizations import Quantization
from lorafile.specs.tables.tracking import TrackingTable
from lorafile.specs.tables.train import FullTable, NoneTable, TrainTable
from lorafile.specs.tables.trainer import TrainerName, TrainerTable
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
    """The study's name, its question, and the seeds with which every configuration runs."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=ONE_LINE)] = Field(
        description="The study's name in the state and the report."
    )
    question: str = Field(default="", description="The question that the report answers first.")
    seeds: Annotated[list[Natural], Field(min_length=1)] = Field(
        default=[42, 1337, 2024], description="Every trained configuration runs once with each seed."
    )
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        default=1,
        description="How many times every trained configuration runs with its first seed. More than one shows the "
        "effect of the machine alone; repeats do not count as seeds.",
    )
    registered: bool = Field(
        default=False,
        description="Record the git commit, and its version of the spec, with each attempt. The report then shows "
        "which claims, margins and analyses were declared before the first one.",
    )


class ModelTable(Settings):
    """The base model of every adapter."""

    path: Text = Field(description="A hub id, a local directory, or `builtin:facts-llama`.")
    revision: str | None = Field(
        default=None, description="Branch, tag or commit on the hub; the lock pins the commit."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Data type of the base weights. `auto`: the checkpoint's own."
    )
    trust_remote_code: bool = Field(default=False, description="Run Python code from the model's repository.")
    task_type: Literal["CAUSAL_LM", "SEQ_CLS"] = Field(
        default="CAUSAL_LM",
        description="PEFT's name for the task: a model that generates text, or one with a classification head.",
    )
    num_labels: Positive | None = Field(
        default=None,
        description="Number of outputs of the head (`SEQ_CLS`), as in transformers. 1 is a regression: labels are "
        "numbers, and the loss is the mean squared error. Unset: one per class in the data.",
    )
    attn_implementation: AttentionName = Field(
        default="auto", description="The attention implementation, by transformers' names. `auto`: its choice."
    )
    device_map: Literal["auto", "balanced", "sequential"] | None = Field(
        default=None,
        description="Spread a base that does not fit on one GPU over all of them. Changes no key and cannot vary.",
    )

    @property
    def is_regression(self) -> bool:
        """Whether a head predicts a number."""
        return self.task_type == "SEQ_CLS" and self.num_labels == 1


class InspectTable(Settings):
    """If present, inspect every trained adapter: parameters, norms, ranks, and drift of the representations."""

    examples: Positive = Field(
        default=64, description="Held-out examples on which to compare hidden states with the base (CKA)."
    )


class TruncateTable(Settings):
    """If present, truncate every trained LoRA to smaller ranks by SVD and evaluate it again, without training."""

    ranks: Annotated[list[Positive], Field(min_length=1)] = Field(
        description="Ranks to truncate to. For each adapter, only ranks below its own apply."
    )


class MergeTable(Settings):
    """If present, merge every trained adapter into its base and compare the merged model with the attached one.

    On a base in half precision, the effect of a different batch sets the gate instead of these tolerances
    (docs/reporting.md).
    """

    dtypes: Annotated[list[Dtype], Field(min_length=1)] = Field(
        default=["float32", "bfloat16", "float16"], description="Data types to store the merged weights in."
    )
    examples: Positive = Field(default=64, description="Held-out examples on which to compare the two.")
    max_log_loss_difference: Number | None = Field(
        default=0.01, description="Gate: largest change in log loss, in nats per token (0.01: 1 % in perplexity)."
    )
    min_argmax_agreement: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=0.99, description="Gate: smallest share of held-out tokens for which both rank the same token first."
    )
    max_logit_difference: PositiveNumber | None = Field(
        default=None,
        description="Gate: largest difference in any logit. Unset: no gate, since a single outlier decides it.",
    )


class SweepTable(BaseModel):
    """Settings to vary: each value is a list of candidates, and the lists multiply."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: Name | None = Field(default=None, description="First part of its configurations' names. Unset: its settings.")
    match: Literal["rank", "parameters"] = Field(
        default="rank",
        description="What the configurations share: the rank, or the number of trainable parameters of the first LoRA. "
        "The ranks of all others whose method has one are then chosen to match it.",
    )
    zip: list[str] = Field(default=[], description="Settings that vary together, candidate by candidate.")
    configurations: list[dict[str, Any]] = Field(
        default=[], description="Individual points: their settings, and optionally a `name`."
    )
    exclude: list[dict[str, Any]] = Field(default=[], description="Points to exclude: settings with values.")


class ReportTable(Settings):
    """The report's title and directory."""

    title: Text | None = Field(default=None, description="Title of the report. Unset: the study's name.")
    path: str = Field(
        default="report",
        pattern=RELATIVE_DIRECTORY,
        description="Directory for `report.html` and `RESULTS.md`, relative to the spec.",
    )


class SpecTables(MethodTables):
    """A study spec."""

    study: StudyTable
    model: ModelTable
    data: DataTable
    method: MethodName = Field(
        default="lora",
        description="A PEFT method, `head` (linear probing: train a classification head on a frozen base), `full` "
        "fine-tuning, or `none` (untuned).",
    )
    full: FullTable = FullTable()
    none: NoneTable = NoneTable()
    quantization: Quantization = Field(
        default="none",
        description="A name, or the settings of a quantization config from transformers: `BitsAndBytesConfig`, or "
        "another one with `quant_method`. `none`: the checkpoint unchanged.",
    )
    train: TrainTable = TrainTable()
    trainer: dict[TrainerName, TrainerTable] = Field(
        default={}, description="Programs that train in the place of the built-in loop, by name."
    )
    evaluate: EvaluateTable = EvaluateTable()
    profile: ProfileTable = ProfileTable()
    inspect: InspectTable | None = None
    truncate: TruncateTable | None = None
    merge: MergeTable | None = None
    sweep: list[SweepTable] = Field(default=[], description="The study's configurations.")
    stage: list[StageTable] = Field(
        default=[], description="More seeds, to decide comparisons that the first look left open."
    )
    verdict: VerdictTable = VerdictTable()
    analysis: list[AnalysisTable] = Field(default=[], description="The analyses in the report.")
    claim: list[ClaimTable] = Field(default=[], description="Sentences that every report checks.")
    reference: list[PublishedTable] = Field(default=[], description="Published results, shown next to the study's own.")
    report: ReportTable = ReportTable()
    tracking: TrackingTable = TrackingTable()

    def in_full(self, sections: Iterable[str] | None = None) -> dict[str, Any]:
        """Return these sections, or all, as dictionaries; a method of which the spec has no table has its defaults."""
        tables = self.model_dump(include=None if sections is None else set(sections))
        unset = (name for name in METHODS if name in tables and tables[name] is None)
        return tables | {name: method_defaults(name).model_dump() for name in unset}


def section_table(name: str) -> type[BaseModel] | None:
    """Return the table that a section of a spec is; None where it is something else: a name, or tables by name."""
    return _whole_table(SpecTables.model_fields[name])


def table_at(path: tuple[str | int, ...], root: type[BaseModel] = SpecTables) -> type[BaseModel] | None:
    """Return the table at a path of a spec, `()` being the spec itself; None where none of fixed names stands."""
    if not path:
        return root
    field = field_at(path, root)
    return None if field is None else _table_in(field)


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
        table = _table_in(field) if field else None
        named = field is not None and get_origin(field.annotation) is dict and table is not None
    return field


def _table_in(field: FieldInfo) -> type[BaseModel] | None:
    """Return the table that a setting is, holds in a list, or allows next to other kinds of value."""
    return _whole_table(field) or _table_of(field.annotation)


def _whole_table(field: FieldInfo) -> type[BaseModel] | None:
    later = next((part for part in field.metadata if isinstance(part, Later)), None)
    return later.table if later else _as_table(field.annotation)


def _table_of(annotation: Any) -> type[BaseModel] | None:
    inner = (table for part in get_args(annotation) if (table := _table_of(part)))
    return _as_table(annotation) or next(inner, None)


def _as_table(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
