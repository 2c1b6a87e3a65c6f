"""The tables of training: `[train]`, and what single methods have at values of their own."""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from lorafile.specs.optimizers import DEFAULT_OPTIMIZER, OF_OPTIMIZERS, OPTIMIZERS, OptimizerName
from lorafile.specs.schedules import SCHEDULES, ScheduleName, own_settings
from lorafile.specs.tables.trainer import BUILTIN, TrainerName
from lorafile.specs.values import Natural, Number, Positive, PositiveNumber, Settings, Share, Steps, Text

ScheduleKwargs = dict[str, float | int | str]
START = "from"  # a word of Python, which no class can write as a field
_START = (
    "The name of another configuration: training starts from its trained adapter of the same seed, and not from a new "
    "one. Both have the same base and an adapter of the same shape; data and everything else of training may differ."
)
if TYPE_CHECKING:
    _Started = Settings
else:
    _Started = create_model(
        "_Started", __base__=Settings, __module__=__name__, **{START: (Text | None, Field(None, description=_START))}
    )


class TrainTable(_Started):
    """How an adapter is trained. Names and meanings are those of transformers' `TrainingArguments`."""

    num_train_epochs: PositiveNumber = Field(default=3.0, description="Passes over the train split.")
    max_steps: Steps = Field(default=-1, description="Optimizer steps. A value above 0 overrides the epochs.")
    per_device_train_batch_size: Positive = Field(default=8, description="Examples in one forward pass.")
    gradient_accumulation_steps: Positive = Field(default=1, description="Forward passes per optimizer step.")
    learning_rate: PositiveNumber = Field(default=2e-4, description="Peak learning rate.")
    learning_rates: dict[str, PositiveNumber] = Field(
        default={},
        description="Peak learning rates of single modules, by name or part of the path: `{ q_proj = 1e-4 }`. The "
        "longest that fits counts; the others have `learning_rate`.",
    )
    optim: OptimizerName = Field(
        default=DEFAULT_OPTIMIZER,
        description="The optimizer, by transformers' name (docs/optimizers.md). With `muon`, parameters that are no "
        "matrices, embeddings and the head are trained by AdamW.",
    )
    lr_scheduler_type: ScheduleName = Field(default="linear", description="Learning rate schedule after warm-up.")
    lr_scheduler_kwargs: ScheduleKwargs = Field(
        default={}, description="The schedule's own settings, such as `{ min_lr_rate = 0.1 }` (docs/optimizers.md)."
    )
    warmup_steps: Number = Field(default=0.0, description="Warm-up steps; a value below 1 is a fraction of all steps.")
    warmup_ratio: Share | None = Field(default=None, description="The old name of a fractional `warmup_steps`.")
    weight_decay: Number = Field(default=0.0, description="Weight decay (not for biases and norms).")
    adam_beta1: Share = Field(default=0.9, description="First decay rate of AdamW and Lion.")
    adam_beta2: Share = Field(default=0.999, description="Second decay rate of AdamW and Lion.")
    adam_epsilon: PositiveNumber = Field(default=1e-8, description="AdamW's epsilon.")
    max_grad_norm: Number = Field(default=1.0, description="Gradient clipping norm. 0: no clipping.")
    loraplus_lr_ratio: PositiveNumber | None = Field(
        default=None,
        description="LoRA+ (arXiv 2402.12354): the learning rate of the B matrices, as a multiple of `learning_rate`.",
    )
    bf16: bool = Field(default=False, description="Autocast to bfloat16.")
    fp16: bool = Field(default=False, description="Autocast to float16, with loss scaling.")
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations: less memory, more time.")
    save_steps: Positive | None = Field(
        default=None, description="Optimizer steps between checkpoints. Does not affect results."
    )
    save_minutes: Number = Field(
        default=10.0,
        description="Minutes between checkpoints; more if writing them would take over 5 % of the time. 0: never. "
        "Does not affect results.",
    )
    init_seed: Natural | None = Field(
        default=None,
        description="Seed of the adapter's initialization, and of a new head's. The order of the data and dropout keep "
        "the run's own seed. Unset: that one, too.",
    )
    eval_steps: Positive | None = Field(
        default=None,
        description="Optimizer steps between evaluations on validation; there is one after the last step, too. Unset: "
        "none. They do not change the training.",
    )
    max_eval_samples: Positive = Field(
        default=200, description="An evaluation reads this many rows of validation, from the first."
    )
    metric_for_best_model: Text | None = Field(
        default=None,
        description="What decides which step is the best: one of the built-in `evaluate.metrics`. Unset: `log_loss`; "
        "of a regression `mse`.",
    )
    load_best_model_at_end: bool = Field(
        default=False, description="Keep the weights of the step that is best on validation, not those of the last one."
    )
    early_stopping_patience: Positive | None = Field(
        default=None, description="Stop after this many evaluations in a row without an improvement."
    )
    early_stopping_threshold: Number = Field(
        default=0.0, description="What must be exceeded for an improvement to count in `early_stopping_patience`."
    )
    trainer: TrainerName = Field(
        default=BUILTIN, description="What trains: `builtin`, or the name of a `[trainer.NAME]` table."
    )
    auto_find_batch_size: bool = Field(
        default=False,
        description="Split a micro-batch that does not fit into memory into 2, 4, … parts. The effective batch, its "
        "order and its loss stay the same, and the report notes the split.",
    )

    @property
    def start(self) -> str:
        """The name of the configuration that training starts from; empty where the adapter is new."""
        name: str | None = getattr(self, START)
        return name or ""

    @cached_property
    def results(self) -> dict[str, Any]:
        """What decides a result: every setting with a value; no trainer, start or `EXECUTION`. Not to be changed.

        A setting that cannot matter under the others has its default, so that it changes no key. Runs that accumulate
        have a protocol of their own, so that no other run's key says anything of it.
        """
        idle = {name: type(self).model_fields[name].default for name in self._idle()}
        settings = {name: value for name, value in (self.written | idle).items() if value is not None}
        own = settings.pop("lr_scheduler_kwargs", {})
        if set(own) <= set(SCHEDULES[settings["lr_scheduler_type"]].arguments):  # else it is refused
            own = own_settings(settings["lr_scheduler_type"], own)
        rates = settings.pop("learning_rates", {})
        rates = rates if set(rates.values()) - {self.learning_rate} else {}
        return settings | {name: table for name, table in zip(_TABLES, (own, rates), strict=True) if table}

    @cached_property
    def written(self) -> dict[str, Any]:
        """What decides a result, with the settings that cannot matter as they are written. Not to be changed."""
        # A program and validation have sections of their own, and a start is a node that is read.
        settings = self.model_dump(exclude={*EXECUTION, *VALIDATION, "trainer", START})
        unset = {name for name in _WHEN_SET if settings[name] == type(self).model_fields[name].default}
        return {name: value for name, value in settings.items() if value is not None and name not in unset} | {
            **({ACCUMULATION: _ACCUMULATION_PROTOCOL} if self.gradient_accumulation_steps > 1 else {}),
            **({LOSS_SCALING: _LOSS_SCALING_PROTOCOL} if self._skips_steps else {}),
        }

    @property
    def _skips_steps(self) -> bool:
        """Whether a step that the built-in loop's loss scaling skips leaves the schedule where it is."""
        moves = self.lr_scheduler_type != "constant" and "lr_scheduler_type" not in self.unread
        return self.fp16 and moves and self.trainer == BUILTIN

    @property
    def unread(self) -> list[str]:
        """The settings of other optimizers, which this one does not read."""
        return [name for name in OF_OPTIMIZERS if name not in OPTIMIZERS[self.optim].reads]

    def _idle(self) -> list[str]:
        """Return the settings that the others make meaningless."""
        idle = ["num_train_epochs" if self.max_steps > 0 else "max_steps", *self.unread]
        constant = self.lr_scheduler_type == "constant" and "lr_scheduler_type" not in idle
        return [*idle, "warmup_steps"] if constant else idle  # as in transformers

    @cached_property
    def validation(self) -> dict[str, Any]:
        """What decides the evaluations of a run, without what is off; empty where it has none."""
        if self.eval_steps is None:
            return {}
        settings = self.model_dump(include=set(VALIDATION))
        if self.early_stopping_patience is None:
            settings.pop("early_stopping_threshold")
        return {name: value for name, value in settings.items() if value}

    @cached_property
    def as_text(self) -> str:
        """Equal text for settings of equal results."""
        return json.dumps(self.results | self.validation, sort_keys=True)


# How a run is done, and not what: these stand in no key, and cannot vary.
EXECUTION = ("save_steps", "save_minutes", "auto_find_batch_size")
VALIDATION = (  # decided by these: what is evaluated on validation while a run trains, and what follows from it
    *("eval_steps", "max_eval_samples", "metric_for_best_model"),
    *("load_best_model_at_end", "early_stopping_patience", "early_stopping_threshold"),
)
# 2: the examples of a step are drawn together, and then split into micro-batches. Before, micro-batches were drawn.
ACCUMULATION, _ACCUMULATION_PROTOCOL = "accumulation_protocol", 2
# 2: a step that the scaler skips is none of the schedule's, as in transformers. Before, the schedule went on.
LOSS_SCALING, _LOSS_SCALING_PROTOCOL = "loss_scaling_protocol", 2
# 2: what decays is what transformers' Trainer decays, vectors among them. Before, no vector was decayed.
DECAY, DECAY_PROTOCOL = "decay_protocol", 2
PROTOCOLS = (ACCUMULATION, LOSS_SCALING, DECAY)
# Settings that stand in a key only where they are not at their defaults: they are younger than keys.
_TABLES = ("lr_scheduler_kwargs", "learning_rates")
_WHEN_SET = ("optim", *_TABLES)
# The most tokens of a row, where `data.packing` puts several examples into one; no table has it.
PACKED_ROW_LENGTH = "packed_row_length"


class FullTable(Settings):
    """Settings of `[train]` with their own values for full fine-tuning."""

    learning_rate: PositiveNumber = Field(
        default=2e-5, description="A tenth of LoRA's, whose best rate is about ten times that of full fine-tuning."
    )
    num_train_epochs: PositiveNumber | None = None
    max_steps: Steps | None = None
    per_device_train_batch_size: Positive | None = None
    gradient_accumulation_steps: Positive | None = None
    optim: OptimizerName | None = None
    lr_scheduler_type: ScheduleName | None = None
    lr_scheduler_kwargs: ScheduleKwargs | None = None
    warmup_steps: Number | None = None
    warmup_ratio: Share | None = None
    weight_decay: Number | None = None
    max_grad_norm: Number | None = None
    bf16: bool | None = None
    fp16: bool | None = None
    gradient_checkpointing: bool | None = None


class NoneTable(Settings):
    """Settings of the untuned model, to show what a good prompt achieves."""

    shots: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0,
        description="Solved examples from the train split before each question, drawn by each of study.seeds.",
    )
