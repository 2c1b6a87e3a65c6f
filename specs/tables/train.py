"""The tables of training: `[train]`, and what single methods have at values of their own."""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from lorafile.specs.tables.trainer import BUILTIN, TrainerName
from lorafile.specs.values import Number, Positive, PositiveNumber, Settings, Share, Steps, Text

Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup"]
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
    lr_scheduler_type: Schedule = Field(default="linear", description="Learning rate schedule after warm-up.")
    warmup_steps: Number = Field(default=0.0, description="Warm-up steps; a value below 1 is a fraction of all steps.")
    warmup_ratio: Share | None = Field(default=None, description="The old name of a fractional `warmup_steps`.")
    weight_decay: Number = Field(default=0.0, description="AdamW's decoupled weight decay (not for biases and norms).")
    adam_beta1: Share = Field(default=0.9, description="AdamW's first decay rate.")
    adam_beta2: Share = Field(default=0.999, description="AdamW's second decay rate.")
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
        return {name: value for name, value in (self.written | idle).items() if value is not None}

    @property
    def written(self) -> dict[str, Any]:
        """What decides a result, with the settings that cannot matter as they are written."""
        # A program has a section of its own, and a start is a node that is read.
        settings = self.model_dump(exclude={*EXECUTION, "trainer", START})
        protocol = {ACCUMULATION: _ACCUMULATION_PROTOCOL} if self.gradient_accumulation_steps > 1 else {}
        return {name: value for name, value in settings.items() if value is not None} | protocol

    def _idle(self) -> list[str]:
        """Return the settings that the others make meaningless."""
        idle = ["num_train_epochs" if self.max_steps > 0 else "max_steps"]
        return [*idle, "warmup_steps"] if self.lr_scheduler_type == "constant" else idle  # as in transformers

    @cached_property
    def as_text(self) -> str:
        """Equal text for settings of equal results."""
        return json.dumps(self.results, sort_keys=True)


# How a run is done, and not what: these stand in no key, and cannot vary.
EXECUTION = ("save_steps", "save_minutes", "auto_find_batch_size")
# 2: the examples of a step are drawn together, and then split into micro-batches. Before, micro-batches were drawn.
ACCUMULATION, _ACCUMULATION_PROTOCOL = "accumulation_protocol", 2


class FullTable(Settings):
    """Settings of `[train]` with their own values for full fine-tuning."""

    learning_rate: PositiveNumber = Field(
        default=2e-5, description="A tenth of LoRA's, whose best rate is about ten times that of full fine-tuning."
    )
    num_train_epochs: PositiveNumber | None = None
    max_steps: Steps | None = None
    per_device_train_batch_size: Positive | None = None
    gradient_accumulation_steps: Positive | None = None
    lr_scheduler_type: Schedule | None = None
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
