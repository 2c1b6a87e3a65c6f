"""What Trainer and PEFT leave next to a model: read as text, `training_args.bin` never, because it is a pickle."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorafile.engine.training.schedule import other_rate
from lorafile.errors import NodeError
from lorafile.models.checkpoint import Checkpoint, open_checkpoint, read_settings
from lorafile.specs.optimizers import ALIASES

_CARD = re.compile(r"^- (\w+): (.+)$", re.MULTILINE)
_ADAM = re.compile(r"betas=\(([\d.e-]+),\s*([\d.e-]+)\) and epsilon=([\d.e-]+)")
_OPTIMIZER = re.compile(r"^Use (?:OptimizerNames\.)?(\w+) ", re.IGNORECASE)
_CURVE = ("step", "epoch", "loss", "learning_rate", "grad_norm")
_STEP_FOLDER = re.compile(r"checkpoint-\d+")


@dataclass(frozen=True)
class TrainerRun:
    """A run that was trained outside of the study, with Trainer or PEFT.

    :ivar settings: what its files say of its training, by `TrainingArguments`' names; `epochs_up_to` is rounded up
    :ivar curve: `step`, `epoch`, `loss`, `learning_rate`, `grad_norm`, as far as they were logged
    :ivar seconds: how long it trained, where that was logged
    """

    checkpoint: Checkpoint
    settings: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)
    steps: int | None = None
    seconds: float | None = None

    @property
    def diverged(self) -> bool:
        """Whether its last logged loss is no number."""
        return bool(self.curve) and not math.isfinite(self.curve[-1]["loss"])


def read_run(name: str) -> TrainerRun:
    """Return the run in an output directory of Trainer or PEFT; of checkpoints alone, the last, if it is the end.

    :raises NodeError: when there is no checkpoint, or training had not come to its end
    """
    directory = Path(name).expanduser()
    folders = _step_folders(directory)
    finished = any((directory / file).is_file() for file in ("adapter_config.json", "config.json"))
    checkpoint = open_checkpoint(str(folders[-1]) if folders and not finished else name)
    state = _json(directory / "trainer_state.json") or (_json(folders[-1] / "trainer_state.json") if folders else {})
    step, last = state.get("global_step"), state.get("max_steps")
    if not finished and step and last and step < last:
        raise NodeError(f"{name} was not fully trained: {checkpoint.directory.name} is step {step} of {last}.")
    logged = [row for row in state.get("log_history", []) if isinstance(row, dict)]
    curve = [
        {name: row[name] for name in _CURVE if row.get(name) is not None}
        for row in logged
        if "loss" in row and "step" in row
    ]
    seconds = next((row["train_runtime"] for row in reversed(logged) if "train_runtime" in row), None)
    settings = _from_state(state) | _from_card(directory) | _from_card(checkpoint.directory)
    return TrainerRun(checkpoint, settings, curve, step, seconds)


def rate_fits(run: TrainerRun, training: dict[str, Any]) -> bool | None:
    """Return whether the logged learning rates are those of some training settings; None where none were logged."""
    logged = [(row["step"], row["learning_rate"]) for row in run.curve if row.get("learning_rate") is not None]
    total = run.settings.get("max_steps") or run.steps
    if not logged or not total:
        return None
    return other_rate(logged, training, total) is None


def _step_folders(directory: Path) -> list[Path]:
    folders = [entry for entry in directory.glob("checkpoint-*") if _STEP_FOLDER.fullmatch(entry.name)]
    return sorted(folders, key=lambda entry: int(entry.name.rpartition("-")[2]))


def _from_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return what trainer_state.json tells; it rounds epochs up, and knows no accumulation and no seed."""
    names = {
        "max_steps": "max_steps",
        "num_train_epochs": "epochs_up_to",
        "train_batch_size": "per_device_train_batch_size",
    }
    return {ours: state[saved] for saved, ours in names.items() if state.get(saved)}


def _from_card(directory: Path) -> dict[str, Any]:
    """Return the hyperparameters of the README that Trainer writes; what it leaves out there is Trainer's default."""
    file = directory / "README.md"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    _, heading, section = text.partition("### Training hyperparameters")
    if not heading:
        return {}
    rows = dict(_CARD.findall(section.partition("\n#")[0]))
    names = {
        "learning_rate": "learning_rate",
        "train_batch_size": "per_device_train_batch_size",
        "seed": "seed",
        "gradient_accumulation_steps": "gradient_accumulation_steps",
        "lr_scheduler_warmup_steps": "warmup_steps",
        "lr_scheduler_warmup_ratio": "warmup_steps",
        "num_epochs": "num_train_epochs",
        "training_steps": "max_steps",
    }
    settings: dict[str, Any] = {"gradient_accumulation_steps": 1, "warmup_steps": 0.0, "fp16": False}
    settings |= {ours: _value(rows[saved]) for saved, ours in names.items() if saved in rows}
    if "lr_scheduler_type" in rows:
        settings["lr_scheduler_type"] = rows["lr_scheduler_type"].removeprefix("SchedulerType.").lower()
    if "mixed_precision_training" in rows:
        settings["fp16"] = True
    if adam := _ADAM.search(rows.get("optimizer", "")):
        settings |= dict(zip(("adam_beta1", "adam_beta2", "adam_epsilon"), map(float, adam.groups()), strict=True))
    if named := _OPTIMIZER.match(rows.get("optimizer", "")):
        settings["optim"] = ALIASES.get(named[1].lower(), named[1].lower())
    devices = _value(rows.get("num_devices", "1"))
    settings["per_device_train_batch_size"] = settings.get("per_device_train_batch_size", 0) * devices
    return {name: value for name, value in settings.items() if value != 0 or name in ("warmup_steps", "fp16", "seed")}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _json(file: Path) -> dict[str, Any]:
    content = read_settings(file) if file.is_file() else {}
    return content if isinstance(content, dict) else {}
