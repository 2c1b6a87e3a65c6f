"""The optimizer step of one run: AdamW, transformers' schedule, clipping, and loss scaling."""

import math
from typing import Any

import torch


class OptimizerStep:
    """Optimizer, schedule and loss scaler of one run."""

    def __init__(self, model: Any, settings: dict[str, Any], steps: int, device: torch.device) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(model, settings)
        self.schedule = _schedule(self.optimizer, settings, steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings["fp16"])
        self._limit = settings["max_grad_norm"] or math.inf

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def step(self) -> torch.Tensor:
        """Step with the gradients at hand; return their norm before it was clipped."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self._limit)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        return norm


def make_optimizer(model: Any, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return AdamW over what is trainable; biases, norms and IA³'s factors do not decay."""
    options: dict[str, Any] = {
        "lr": settings["learning_rate"],
        "betas": (settings["adam_beta1"], settings["adam_beta2"]),
        "eps": settings["adam_epsilon"],
        "fused": True,
    }
    if settings.get("loraplus_lr_ratio"):  # the groups of LoRA+ (arXiv 2402.12354): B learns at a rate of its own
        from peft.optimizers import create_loraplus_optimizer

        options |= {"loraplus_lr_ratio": settings["loraplus_lr_ratio"]}
        options |= {"loraplus_weight_decay": settings["weight_decay"]}
        return create_loraplus_optimizer(model, torch.optim.AdamW, **options)
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (settings["weight_decay"], 0.0)]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            flat = name.endswith("bias") or parameter.ndim < 2 or ".ia3_l." in name
            groups[flat]["params"].append(parameter)
    return torch.optim.AdamW([group for group in groups if group["params"]], **options)


def _schedule(optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int) -> Any:
    """Return transformers' schedule of that name; a fractional warm-up is a share of all steps."""
    from transformers import get_scheduler

    warmup = settings["warmup_steps"]
    count = math.ceil(warmup * steps) if warmup < 1 else int(warmup)
    return get_scheduler(settings["lr_scheduler_type"], optimizer, num_warmup_steps=count, num_training_steps=steps)
