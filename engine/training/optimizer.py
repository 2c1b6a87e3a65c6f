"""The optimizer step of one run: an optimizer of the table, transformers' schedule, clipping, and loss scaling."""

import contextlib
import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import nn

from lorafile.errors import MissingExtra, NodeError
from lorafile.files.run_directory import DamagedCheckpoint
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER, OPTIMIZERS, Optimizer, decays

Groups = list[dict[str, Any]]
_OF_BITSANDBYTES = ("state1", "state2")  # its states, which it may page


class OptimizerStep:
    """Optimizer, schedule and loss scaler of one run."""

    def __init__(self, model: Any, settings: dict[str, Any], steps: int, device: torch.device) -> None:
        self.optimizer: Any = make_optimizer(model, settings)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.schedule = _schedule(self.optimizer, settings, steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings["fp16"])
        self._limit, self._last = settings["max_grad_norm"] or math.inf, steps - 1
        if hasattr(self.optimizer, "train"):  # schedule-free: gradients are taken next to the average
            self.optimizer.train()

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def step(self) -> torch.Tensor:
        """Step with the gradients at hand; return their norm before it was clipped.

        A step that the scaler skips is none of the schedule's, as in transformers; nor is there a rate after the last.
        """
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._limit)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale and self.schedule.last_epoch < self._last:
            self.schedule.step()
        return norm

    def finish(self) -> None:
        """Leave in the model what is to be stored: of a schedule-free optimizer, the average."""
        if hasattr(self.optimizer, "eval"):
            self.optimizer.eval()

    @contextlib.contextmanager
    def stored_weights(self) -> Iterator[None]:
        """Have the weights that would be stored now in the model; afterwards, to the bit, those that are trained."""
        if not hasattr(self.optimizer, "eval"):
            yield
            return
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer.eval()
        try:
            yield
        finally:
            self.optimizer.train()
            with torch.no_grad():
                for parameter, value in zip(self.parameters, kept, strict=True):
                    parameter.copy_(value)

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer's state as torch's own optimizers have it: no table is inside another."""
        state: dict[str, Any] = torch.optim.Optimizer.state_dict(self.optimizer)
        return state

    def restore_optimizer(self, saved: dict[str, Any]) -> None:
        """Take over an optimizer's state, each tensor in its own type and laid out as its parameter is.

        :raises DamagedCheckpoint: when it is the state of other groups of parameters
        """
        optimizer = self.optimizer
        groups = optimizer.param_groups
        if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved["param_groups"]]:
            raise DamagedCheckpoint("its groups of parameters differ from those this run trains")
        torch.optim.Optimizer.load_state_dict(optimizer, {"state": {}, "param_groups": saved["param_groups"]})
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for key, values in saved["state"].items():
            parameter = parameters[key] if isinstance(key, int) else _named(optimizer, key)
            holder: Any = parameter if isinstance(key, int) else key
            optimizer.state[holder] = {
                word: _placed(optimizer, parameter, word, value) if isinstance(value, torch.Tensor) else value
                for word, value in values.items()
            }


def _named(optimizer: torch.optim.Optimizer, key: str) -> torch.Tensor:
    """Return a parameter of the layer by which PEFT's LoRA-FA calls its state."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            if name.startswith(key):
                return torch.as_tensor(parameter)
    raise DamagedCheckpoint(f"{key} is no part of the model")


def _placed(optimizer: Any, parameter: torch.Tensor, word: str, value: torch.Tensor) -> torch.Tensor:
    """Return a tensor of an optimizer's state where the optimizer would have made it."""
    if word in _OF_BITSANDBYTES and hasattr(optimizer, "get_state_buffer"):  # paged again where it was
        paged: torch.Tensor = optimizer.get_state_buffer(parameter, dtype=value.dtype)
        return paged.copy_(value)
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return value.to(parameter.device)


def make_optimizer(model: Any, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return the optimizer of some training settings over what is trainable.

    :raises NodeError: when its package is not installed
    """
    name = settings.get("optim", DEFAULT_OPTIMIZER)
    optimizer = OPTIMIZERS[name]
    if not optimizer.installed:
        raise NodeError(str(MissingExtra(f'train.optim = "{name}"', optimizer.package, optimizer.extra)))
    if name == "lorafa":
        return _lorafa(model, settings)
    options = {"lr": settings["learning_rate"], **_arguments(optimizer, settings), **optimizer.options}
    if name == "muon":
        return MuonWithAdamW(model, _groups(model, settings), **options)
    if optimizer.paged:  # on a processor bitsandbytes would warn that it does not
        options["is_paged"] = next(p for p in model.parameters() if p.requires_grad).device.type == "cuda"
    module, _, made = optimizer.make.rpartition(".")
    kind = getattr(import_module(module), made)
    if settings.get("loraplus_lr_ratio"):  # the groups of LoRA+ (arXiv 2402.12354): B learns at a rate of its own
        from peft.optimizers import create_loraplus_optimizer

        options |= {"loraplus_lr_ratio": settings["loraplus_lr_ratio"]}
        options |= {"loraplus_weight_decay": settings["weight_decay"]}
        return _without_overrides(create_loraplus_optimizer(model, kind, **options), model)
    return _without_overrides(kind(_groups(model, settings), **options), model)


def _arguments(optimizer: Optimizer, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of training that an optimizer reads, as the arguments that it calls them."""
    arguments: dict[str, Any] = {}
    if "adam_beta1" in optimizer.reads:
        arguments["betas"] = (settings["adam_beta1"], settings["adam_beta2"])
    if "adam_epsilon" in optimizer.reads:
        arguments["eps"] = settings["adam_epsilon"]
    return arguments


def _groups(model: Any, settings: dict[str, Any]) -> Groups:
    """Return the trainable parameters by whether they decay, as transformers' Trainer has it, and by their rate."""
    from transformers.trainer_pt_utils import get_parameter_names

    own = {name: float(rate) for name, rate in (settings.get("learning_rates") or {}).items()}
    decayed = {name for name in get_parameter_names(model, [nn.LayerNorm]) if decays(name)}
    rates = {None: settings["learning_rate"], **own}
    groups: dict[tuple[str | None, bool], dict[str, Any]] = {
        (module, decay): {"params": [], "weight_decay": settings["weight_decay"] if decay else 0.0}
        | ({} if module is None else {"lr": rates[module]})
        for module in rates
        for decay in (True, False)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[_module(name, own), name in decayed]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def _module(parameter: str, names: dict[str, float]) -> str | None:
    """Return the longest name that is part of the path of a parameter; None where none is."""
    fitting = [name for name in names if f".{name}." in f".{parameter}"]
    return max(fitting, key=len, default=None)


def _without_overrides(optimizer: Any, model: Any) -> torch.optim.Optimizer:
    """Keep a bitsandbytes optimizer's exceptions to this run: embeddings have a float32 state, as transformers has it.

    The library has one list of exceptions for a process, by addresses that later runs would use again.
    """
    if hasattr(optimizer, "mng"):
        optimizer.mng = object.__new__(type(optimizer.mng))  # the library's constructor refuses a second one
        optimizer.mng.initialize()
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                optimizer.mng.override_config(module.weight, "optim_bits", 32)
    return optimizer  # type: ignore[no-any-return]


def _lorafa(model: Any, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return LoRA-FA over a plain LoRA: A is frozen, and the gradient of B corrected for it.

    PEFT takes the scale of each layer from the layer; r and alpha are those of an argument that it no longer reads.
    """
    from peft.optimizers import create_lorafa_optimizer

    config = model.active_peft_config
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    optimizer = create_lorafa_optimizer(model, r=config.r, lora_alpha=config.lora_alpha, lr=rate, weight_decay=decay)
    optimizer.defaults["lr"] = rate  # which schedules look at
    return optimizer


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon over the matrices of hidden layers, and AdamW over all else, as one optimizer."""

    def __init__(
        self, model: Any, groups: Groups, lr: float, betas: tuple[float, float], eps: float, **options: Any
    ) -> None:
        """Divide the groups.

        :param options: of Muon
        """
        outer = [module for module in model.modules() if isinstance(module, nn.Embedding)]
        outer += filter(None, (model.get_input_embeddings(), model.get_output_embeddings()))
        apart = {id(weight) for module in outer for weight in module.parameters()}
        hidden, others = _divided(groups, apart)
        self._muon = torch.optim.Muon(hidden, lr=lr, **options) if hidden else None
        self._adamw = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=True) if others else None
        parts = [part for part in (self._muon, self._adamw) if part is not None]
        super().__init__([group for part in parts for group in part.param_groups], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Let each of the two step over its groups; both share the state of this optimizer."""
        loss = None if closure is None else closure()
        part: Any
        for part, momentum in ((self._muon, True), (self._adamw, False)):
            if part is not None:
                part.state = self.state
                part.param_groups = [group for group in self.param_groups if ("momentum" in group) is momentum]
                part.step()
        return loss


def _divided(groups: Groups, apart: set[int]) -> tuple[Groups, Groups]:
    """Return the groups of the matrices that Muon takes, and those of everything else."""
    parts: tuple[Groups, Groups] = [], []
    for group in groups:
        for others, part in enumerate(parts):
            mine = [p for p in group["params"] if (p.ndim != 2 or id(p) in apart) is bool(others)]
            part += [{**group, "params": mine}] if mine else []
    return parts


def _schedule(optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int) -> Any:
    """Return transformers' schedule of that name; a fractional warm-up is a share of all steps."""
    from transformers import get_scheduler

    warmup, row = settings["warmup_steps"], OPTIMIZERS[settings.get("optim", DEFAULT_OPTIMIZER)]
    count = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
    kind, own = settings["lr_scheduler_type"], settings.get("lr_scheduler_kwargs") or {}
    if "lr_scheduler_type" not in row.reads:
        kind, own = "constant_with_warmup", {}
    return get_scheduler(
        kind,
        optimizer,
        num_warmup_steps=count,
        num_training_steps=None if "num_stable_steps" in own else steps,  # of the two transformers takes one
        scheduler_specific_kwargs=own,
    )
