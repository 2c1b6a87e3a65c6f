"""The optimizers of `train.optim`, by transformers' names: how each is made, what it reads, and what its state takes.

A row is all that an optimizer needs; `tests/engine/training/test_optimizers.py` proves each. Imports no torch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import prod
from typing import Any, Literal

OptimizerName = Literal[
    "adamw_torch",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_32bit",
    "lion_8bit",
    "adafactor",
    "sgd",
    "lorafa",
    "muon",
    "schedule_free_adamw",
]
DEFAULT_OPTIMIZER: OptimizerName = "adamw_torch"
# What transformers, TRL and others call some of them.
ALIASES = {
    "adamw": "adamw_torch",
    "adamw_hf": "adamw_torch",
    "adamw_torch_fused": "adamw_torch",
    "adamw_bnb": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "lion": "lion_32bit",
    "paged_adamw": "paged_adamw_32bit",
}
# Settings of `[train]` that only some optimizers read.
OF_OPTIMIZERS = ("adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_type", "lr_scheduler_kwargs")
_BETAS, _SCHEDULE = ("adam_beta1", "adam_beta2"), ("lr_scheduler_type", "lr_scheduler_kwargs")
_ADAM = (*_BETAS, "adam_epsilon")
SMALLEST_8BIT = 4096  # elements of a parameter, below which bitsandbytes holds its state in float32
_FLOAT32_STATE = f"the state of parameters below {SMALLEST_8BIT:,} elements, and of embeddings, is float32"
_BLOCK = 256  # elements of an 8-bit state that share a float32 scale
# Names of parameters that transformers' Trainer does not decay, in lower case; nor does it those of nn.LayerNorm.
NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)")


@dataclass(frozen=True)
class Optimizer:
    """An optimizer that a study may name.

    :ivar title: what it is called in text
    :ivar make: the class that the engine makes it with, or PEFT's function
    :ivar options: the arguments that turn the class into this optimizer
    :ivar reads: which of `OF_OPTIMIZERS` it reads
    :ivar values: how many values its state has for each trained parameter, in the parameter's own type
    :ivar bits: 8 or 32 where bitsandbytes holds the state, whatever the parameter's type is; `values` of them
    :ivar factored: its state for a matrix is a vector for the rows and one for the columns
    :ivar paged: on a CUDA GPU, its state moves to the machine's memory when the GPU's is full
    :ivar together: whether runs with it are trained together: each element of its state depends on that element alone
    :ivar per_group: whether `learning_rates` can give modules rates of their own
    :ivar loraplus: whether LoRA+ can give the B matrices a rate of their own
    :ivar package: the package that it needs besides those of training, and `extra` that installs it
    :ivar paper: where it was published
    """

    title: str
    make: str
    reads: tuple[str, ...]
    values: float
    options: dict[str, Any] = field(default_factory=dict)
    bits: int | None = None
    factored: bool = False
    paged: bool = False
    together: bool = False
    per_group: bool = True
    loraplus: bool = True
    package: str = ""
    extra: str = ""
    paper: str = ""
    note: str = ""

    def state_bytes(self, shape: Sequence[int], width: int) -> float:
        """Return the bytes of its state for a trained parameter.

        :param width: bytes of one element of the parameter
        """
        elements = prod(shape)
        if self.factored and len(shape) > 1:
            return 4.0 * elements * (1 / shape[-1] + 1 / shape[-2])
        if self.bits == 8 and elements >= SMALLEST_8BIT:
            return self.values * (elements + 4 * -(-elements // _BLOCK))
        return self.values * elements * (4 if self.bits else width)

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is here."""
        return not self.package or find_spec(self.package) is not None

    @property
    def state(self) -> str:
        """What its state takes for a large float32 matrix, as text."""
        if self.factored or not self.values:
            return "a row and a column of state per matrix" if self.factored else "no state"
        size = self.state_bytes((SMALLEST_8BIT, SMALLEST_8BIT), 4) / SMALLEST_8BIT**2
        return f"{size:.3g} bytes of state per parameter"


def _of_bitsandbytes(title: str, kind: str, bits: int, paper: str, paged: bool = False, note: str = "") -> Optimizer:
    """Return the row of an optimizer of bitsandbytes: AdamW has two values of state for each parameter, Lion one."""
    adam = kind == "AdamW"
    return Optimizer(
        title=title,
        make=f"bitsandbytes.optim.{kind}",
        options={"optim_bits": bits},
        reads=(*(_ADAM if adam else _BETAS), *_SCHEDULE),
        values=2 if adam else 1,
        bits=bits,
        paged=paged,
        package="bitsandbytes",
        extra="train",
        paper=paper,
        note=note or (_FLOAT32_STATE if bits == 8 else ""),
    )


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw_torch": Optimizer(
        title="AdamW",
        make="torch.optim.AdamW",
        options={"fused": True},
        reads=(*_ADAM, *_SCHEDULE),
        values=2,
        together=True,
        paper="arXiv 1711.05101",
        note="torch's fused kernel, which transformers calls adamw_torch_fused",
    ),
    "adamw_8bit": _of_bitsandbytes("8-bit AdamW", "AdamW", 8, "arXiv 2110.02861"),
    "paged_adamw_8bit": _of_bitsandbytes("paged 8-bit AdamW", "AdamW", 8, "arXiv 2305.14314", paged=True),
    "paged_adamw_32bit": _of_bitsandbytes("paged AdamW", "AdamW", 32, "arXiv 2305.14314", paged=True),
    "lion_32bit": _of_bitsandbytes(
        "Lion", "Lion", 32, "arXiv 2302.06675", note="its best rate is three to ten times smaller than AdamW's"
    ),
    "lion_8bit": _of_bitsandbytes("8-bit Lion", "Lion", 8, "arXiv 2302.06675"),
    "adafactor": Optimizer(
        title="Adafactor",
        make="transformers.optimization.Adafactor",
        options={"scale_parameter": False, "relative_step": False},
        reads=_SCHEDULE,
        values=1,
        factored=True,
        paper="arXiv 1804.04235",
        note="transformers' own, with the rate of the schedule, as its Trainer makes it",
    ),
    "sgd": Optimizer(
        title="SGD",
        make="torch.optim.SGD",
        reads=_SCHEDULE,
        values=0,
        together=True,
        note="without momentum, as transformers makes it; its best rate is far above AdamW's",
    ),
    "lorafa": Optimizer(
        title="LoRA-FA",
        make="peft.optimizers.create_lorafa_optimizer",
        reads=_SCHEDULE,
        values=2,
        per_group=False,
        loraplus=False,
        paper="arXiv 2308.03303",
        note="LoRA only: A stays as it was initialized; betas and epsilon are PEFT's own",
    ),
    "muon": Optimizer(
        title="Muon",
        make="torch.optim.Muon",
        options={"adjust_lr_fn": "match_rms_adamw"},
        reads=(*_ADAM, *_SCHEDULE),
        values=1,
        loraplus=False,
        paper="arXiv 2502.16982",
        note="updates are scaled to the size of AdamW's; parameters that are no matrices, embeddings and the head are "
        "trained by AdamW",
    ),
    "schedule_free_adamw": Optimizer(
        title="schedule-free AdamW",
        make="schedulefree.AdamWScheduleFree",
        reads=_ADAM,
        values=2,
        package="schedulefree",
        extra="optimizers",
        paper="arXiv 2405.15682",
        note="the rate is constant after the warm-up; what is stored is the average",
    ),
}


@dataclass(frozen=True)
class Row:
    """A line of a list of what studies can name: a name, what it can do, and what is to be known."""

    name: str
    capabilities: str
    note: str


def optimizer_rows(gpu: bool) -> list[Row]:
    """Return a line for each optimizer: its state, whether its runs are trained together, and where it is from.

    :param gpu: whether a CUDA GPU is here, on which alone states are paged
    """
    rows = []
    for name, optimizer in OPTIMIZERS.items():
        words = [optimizer.state, "trained together" if optimizer.together else "trained alone"]
        if optimizer.paged:
            words.append("paged" if gpu else "not paged here")
        if optimizer.extra not in ("", "train"):
            words.append(f"needs lorafile[{optimizer.extra}]")
        rows.append(Row(name, ", ".join(words), "; ".join(filter(None, (optimizer.note, optimizer.paper)))))
    return rows


def decays(name: str) -> bool:
    """Return whether transformers' Trainer decays a parameter of that name that is in no nn.LayerNorm."""
    return NO_DECAY.search(name.lower()) is None
