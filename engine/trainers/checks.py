"""What a program left, compared with what was planned: its adapter, its losses, its steps, its learning rates."""

import json
import math
import random
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.adapters import new_adapter, parameter_counts, save_adapter
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.loss import likelihoods
from lorafile.engine.request import Request, examples_at_once
from lorafile.engine.training.schedule import other_rate
from lorafile.errors import NodeError
from lorafile.files.digests import file_digest

_ROWS = 64  # of the train split, on which losses are compared
_DRAWS = 2000  # batches that are drawn to know how their losses vary
_DEVIATIONS = 4.0
_FIRST_SHARE, _LAST_SHARE = 0.03, 0.15  # of a loss, that rounding and dropout, or the last steps, may make
_SMALL = 1 << 26  # bytes of a file whose digest is taken before a run
# Settings of an adapter that change what stored matrices compute.
_SCALE = ("peft_type", "r", "lora_alpha", "alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "bias")


@dataclass
class Checked:
    """What the checks of a run found.

    :ivar figures: of the result
    :ivar traces: sentences on what a program reported and did not do
    """

    figures: dict[str, Any] = field(default_factory=dict)
    traces: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Losses:
    """The losses of some train rows: of each the nats and the supervised tokens."""

    rows: list[tuple[float, int]]

    @property
    def mean(self) -> float:
        """The mean loss per supervised token, in nats."""
        return sum(nats for nats, _ in self.rows) / max(1, sum(tokens for _, tokens in self.rows))

    def spread(self, size: int, batches: int = 1) -> float:
        """Return the standard deviation of the mean loss of some batches, and of not knowing the other rows."""
        draw = random.Random(0)
        means = [_Losses(draw.choices(self.rows, k=size)).mean for _ in range(_DRAWS)]
        deviation = statistics.pstdev(means)
        return math.sqrt(deviation**2 / batches + deviation**2 * size / len(self.rows))


def check_adapter(
    request: Request, tokens: Tokens, steps: int, left: Path, out: Path, bases: Bases, curve: list[dict[str, Any]]
) -> Checked:
    """Check an adapter against a fresh one of the plan, and a curve against it; write it as every run's is written.

    :param left: the directory that the program left it in
    :raises NodeError: when it is not the planned one, is no number, or changes nothing
    """
    who = f"trainer.{request.paths['trainer']['name']}"
    checked = Checked()
    with bases.proven(request.settings, request.paths) as base, new_adapter(base, request, tokens, steps) as model:
        tensors = _planned_tensors(model, left, who)
        _check_scale(model, left, who)
        rows = _sample(tokens)
        before = _losses(base, model, tokens, rows, request)
        _load(model, tensors)
        after = _losses(base, model, tokens, rows, request)
        if after.rows == before.rows:
            raise NodeError(
                f"{who}: the adapter changes nothing: the loss of {len(rows)} train rows is {after.mean:.4f} with it "
                "and without it."
            )
        model.eval()
        names = save_adapter(model, request, out)
        checked.figures["trainable_parameters"], checked.figures["total_parameters"] = parameter_counts(model)
    checked.figures["adapter_bytes"] = sum((out / name).stat().st_size for name in names if name.endswith("tensors"))
    checked.figures |= {"train_loss_before": before.mean, "train_loss_after": after.mean, "checked_rows": len(rows)}
    if request.settings["trainer"]["objective"] == "sft" and curve:
        checked.traces += _loss_traces(request, before, after, curve, who)
    return checked


def _planned_tensors(model: Any, left: Path, who: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a stored adapter, which are exactly those of a planned one."""
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    planned = get_peft_model_state_dict(model, save_embedding_layers=False)
    try:
        tensors = load_file(left / "adapter_model.safetensors")
    except (SafetensorError, OSError) as error:
        raise NodeError(f"{who}: its adapter cannot be read: {error}") from error
    missing, extra = sorted(planned.keys() - tensors.keys()), sorted(tensors.keys() - planned.keys())
    if missing or extra:
        lacks = f"{missing[0]} is missing ({len(missing)} of {len(planned)})" if missing else ""
        what = lacks or f"{extra[0]} is not planned"
        raise NodeError(f"{who}: the adapter is not on exactly the planned modules: {what}.")
    for name, tensor in planned.items():
        if tensors[name].shape != tensor.shape:
            shapes = f"{list(tensors[name].shape)} instead of {list(tensor.shape)}"
            raise NodeError(f"{who}: {name} has the shape {shapes}.")
        if not tensors[name].is_floating_point():
            raise NodeError(f"{who}: {name} is of the type {tensors[name].dtype}, which no adapter is.")
        if not bool(tensors[name].isfinite().all()):
            raise NodeError(f"{who}: {name} holds values that are not numbers.")
    return tensors


def _check_scale(model: Any, left: Path, who: str) -> None:
    """Refuse an adapter whose own settings would have its matrices computed in another way than planned."""
    planned = model.peft_config["default"].to_dict()
    try:
        stored = json.loads((left / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError(f"{who}: its adapter_config.json cannot be read: {error}") from error
    for name in _SCALE:
        if name in planned and (stored.get(name) or None) != (_plain(planned[name]) or None):
            raise NodeError(f"{who}: its adapter has {name} = {stored.get(name)!r}, and the plan {planned[name]!r}.")


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)


def _load(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, tensors)


def _sample(tokens: Tokens) -> list[int]:
    """Return some rows, evenly over the split."""
    count = min(_ROWS, len(tokens))
    return [round(number * (len(tokens) - 1) / max(1, count - 1)) for number in range(count)]


def _losses(base: Base, model: Any, tokens: Tokens, rows: list[int], request: Request) -> _Losses:
    model.eval()
    size, found = examples_at_once(request), []
    with torch.inference_mode():
        for start in range(0, len(rows), size):
            batch = base.collate(tokens, rows[start : start + size])
            found += [(-row["log_likelihood"], int(row["tokens"])) for row in likelihoods(model, batch)]
    return _Losses(found)


def mean_loss(base: Base, model: Any, tokens: Tokens, request: Request) -> float:
    """Return a model's mean loss per supervised token on some train rows, in nats."""
    return _losses(base, model, tokens, _sample(tokens), request).mean


def _loss_traces(request: Request, before: _Losses, after: _Losses, curve: list[dict[str, Any]], who: str) -> list[str]:
    """Compare the first and the last reported loss with what the model has, before and after."""
    training = request.settings["training"]
    size = training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    traces = []
    first, spread = curve[0]["loss"], before.spread(size)
    if curve[0]["step"] == 1 and abs(first - before.mean) > max(_DEVIATIONS * spread, _FIRST_SHARE * before.mean):
        traces.append(
            f"{who}: its first loss is {first:.3f}; the untrained model's on its batches is {before.mean:.3f} ± "
            f"{spread:.3f}. Does it train on other rows, through another template, or on other tokens?"
        )
    count = min(10, max(1, len(curve) // 10))
    last = statistics.fmean(row["loss"] for row in curve[-count:])
    allowed = _DEVIATIONS * after.spread(size, count) + _LAST_SHARE * max(last, after.mean)
    if abs(last - after.mean) > allowed:
        traces.append(
            f"{who}: it reports a loss of {last:.3f} at the end; its adapter has {after.mean:.3f} on the train rows."
        )
    return traces


def check_curve(rows: list[dict[str, Any]], training: dict[str, Any], steps: int, who: str) -> list[str]:
    """Return what of a curve is not as planned: its steps, and their learning rates."""
    if not rows:
        return [f"{who}: it reported no steps, so neither its losses nor its learning rates could be checked."]
    traces = []
    seen = [row["step"] for row in rows]
    missing = sorted(set(range(1, max(seen) + 1)) - set(seen))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        traces.append(f"{who}: its curve has no row for step {missing[0]}{more}.")
    if max(seen) != steps:
        traces.append(f"{who}: it took {max(seen)} optimizer steps instead of {steps}.")
    other = other_rate([(row["step"], row["learning_rate"]) for row in rows], training, steps)
    if other is not None:
        step, rate, planned = other
        traces.append(f"{who}: its learning rate is {rate:.3g} at step {step}; the plan has {planned:.3g}.")
    return traces


@dataclass(frozen=True)
class ModelFiles:
    """The files of a base as they were before a run: a program must not change them."""

    stats: dict[Path, tuple[int, ...]]
    digests: dict[Path, str]

    @classmethod
    def of(cls, directory: Path) -> "ModelFiles":
        """Note size, inode and times of every file; of small ones the digest, too."""
        stats = _stats(directory)
        return cls(stats, {file: file_digest(file) for file, stat in stats.items() if stat[0] <= _SMALL})

    def changed(self, directory: Path) -> list[str]:
        """Return the names of files that are not what they were."""
        now = _stats(directory)
        suspects = [file for file in {**self.stats, **now} if self.stats.get(file) != now.get(file)]
        return sorted(
            file.name
            for file in suspects
            if file not in self.digests or not file.is_file() or file_digest(file) != self.digests[file]
        )


def _stats(directory: Path) -> dict[Path, tuple[int, ...]]:
    files = {file: file.stat() for file in directory.rglob("*") if file.is_file()}
    return {file: (s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for file, s in files.items()}
