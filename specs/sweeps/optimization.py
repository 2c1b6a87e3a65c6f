"""Settings of the optimizer and of the schedule that contradict each other, or that nothing reads."""

from typing import Any

from lorafile.specs.configurations import Configuration
from lorafile.specs.optimizers import OPTIMIZERS
from lorafile.specs.positions import Path as Place
from lorafile.specs.schedules import wrong_settings
from lorafile.specs.tables.train import TrainTable

Contradiction = tuple[Place, str] | None


def training_contradiction(c: Configuration, train: TrainTable) -> Contradiction:
    """Return where the optimizer of a configuration contradicts its other settings, and why."""
    optimizer = OPTIMIZERS[train.optim]
    if "lr_scheduler_kwargs" in optimizer.reads:
        wrong = wrong_settings(train.lr_scheduler_type, train.lr_scheduler_kwargs, train.learning_rate)
        if wrong:
            return ("train", "lr_scheduler_kwargs"), wrong
    if train.loraplus_lr_ratio and not optimizer.loraplus:
        return ("train", "loraplus_lr_ratio"), f'LoRA+ cannot be combined with optim = "{train.optim}"'
    if train.learning_rates and not optimizer.per_group:
        return ("train", "learning_rates"), f'optim = "{train.optim}" has one learning rate for all modules'
    if train.learning_rates and train.loraplus_lr_ratio:
        return ("train", "learning_rates"), "cannot be combined with loraplus_lr_ratio; set one of the two"
    if train.optim == "schedule_free_adamw" and train.adam_beta1 == 0:
        return ("train", "adam_beta1"), 'optim = "schedule_free_adamw" needs a value above 0'
    if train.optim == "lorafa" and (reason := _not_for_lorafa(c.method, c.adapter or {})):
        return ("train", "optim"), f'"lorafa" trains the B matrices of plain LoRA, and {reason}'
    return None


def _not_for_lorafa(method: str, adapter: dict[str, Any]) -> str:
    """Return what of a configuration is more than A and B of linear layers, or nothing."""
    if method != "lora":
        return f'method = "{method}" has none'
    for name in ("use_dora", "lora_bias"):
        if adapter[name]:
            return f"{name} = true adds vectors to them"
    if adapter["target_parameters"]:
        return "target_parameters joins the matrices of several experts"
    return 'init_lora_weights = "mica" does not train them' if adapter["init_lora_weights"] == "mica" else ""


def unread_setting(train: TrainTable) -> Contradiction:
    """Return a setting that is not at its default and that the optimizer of a study does not read."""
    for name in train.unread:
        if getattr(train, name) != type(train).model_fields[name].default:
            return ("train", name), f'optim = "{train.optim}" does not read it; remove it, or choose another optimizer'
    return None
