"""`train`: set up, fit, save. The loop is our own, so that everything it does can be read here."""

import contextlib
import math
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

from lorafile.engine.batching.batches import by_length, epoch_order, in_micro_batches, split_micro_batches
from lorafile.engine.batching.tokens import PackedExamples, Tokens, Unit, Units, training_units
from lorafile.engine.model.adapters import (
    autocast,
    checkpointed,
    load_tuned,
    new_adapter,
    parameter_counts,
    save_adapter,
)
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.head import blind_loss, load_tokens
from lorafile.engine.model.loss import summed_loss
from lorafile.engine.model.methods import after_step, penalty
from lorafile.engine.model.peak_memory import is_out_of_memory
from lorafile.engine.randomness import initial_seed, seeded
from lorafile.engine.request import Report, Request, Result
from lorafile.engine.training.checkpoint import ResumableModel
from lorafile.engine.training.curve import Curve
from lorafile.engine.training.optimizer import OptimizerStep
from lorafile.engine.training.recorder import RunRecorder, record_run
from lorafile.engine.training.validation import FILE as VALIDATION_FILE
from lorafile.engine.training.validation import Validation
from lorafile.files.jsonl import write_lines


class _SmallerParts(Exception):
    """A step did not fit into memory, and smaller micro-batches may."""


def train(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    """Train one adapter, or the whole model, under one seed; with smaller micro-batches where these do not fit."""
    with record_run(request, report) as recorder:
        while True:
            with contextlib.suppress(_SmallerParts):  # and what it holds in memory
                return _attempt(request, out, bases, recorder)
            bases.drop()
            recorder.parts *= 2


def _attempt(request: Request, out: Path, bases: Bases, recorder: RunRecorder) -> Result:
    documents = load_tokens(request, "train")
    if request.settings["adapter"]["method"] == "full":
        bases.drop()
        start = request.inputs.get("start")
        base = load_tuned(request.settings, request.paths, start)
        base.model.requires_grad_(True)
        if start is None:
            base.draw_head(initial_seed(request.settings))
        return _train(base, base.model, documents, request, out, recorder)
    with bases.proven(request.settings, request.paths) as base:
        settings = request.settings["training"]
        steps = total_steps(len(training_units(documents, base.model, settings)[0]), settings)
        with new_adapter(base, request, documents, steps) as model:
            return _train(base, model, documents, request, out, recorder)


def _train(base: Base, model: Any, documents: Tokens, request: Request, out: Path, recorder: RunRecorder) -> Result:
    settings = request.settings["training"]
    tokens, unpacked = training_units(documents, model, settings)
    curve = Curve()
    validation = Validation(base, request) if request.settings.get("validation") else None
    with seeded(request.settings["seed"], "training"), checkpointed(model, settings["gradient_checkpointing"]):
        trouble = _fit(base, model.train(), tokens, request, curve, recorder, validation)
    more: dict[str, Any] = {"unpacked": unpacked} if unpacked else {}
    if validation is not None:
        if not trouble:
            validation.restore_best(model, len(curve.rows))
        write_lines(out / VALIDATION_FILE, validation.rows)
        more |= validation.figures(len(curve.rows), bool(trouble))
    return finish(model, request, out, curve, recorder, trouble, more)


def finish(
    model: Any, request: Request, out: Path, curve: Curve, recorder: RunRecorder, trouble: str, more: dict[str, Any]
) -> Result:
    """Write the result of a run, and return it.

    :param trouble: why it diverged, where it did
    :param more: figures next to those of every run
    """
    seconds = recorder.seconds()
    model.eval()
    write_lines(out / "curve.jsonl.gz", curve.rows)
    figures = _figures(model, curve, seconds, more.get("validation_seconds", 0.0)) | more | recorder.figures()
    files = ["curve.jsonl.gz", *([VALIDATION_FILE] if (out / VALIDATION_FILE).exists() else [])]
    if trouble:
        return Result("diverged", f"Training diverged: {trouble}.", figures, files)
    return Result(figures=figures, files=[*files, *save(model, request, out, figures)])


def _fit(
    base: Base,
    model: Any,
    tokens: Units,
    request: Request,
    curve: Curve,
    recorder: RunRecorder,
    validation: Validation | None,
) -> str:
    """Fit; say where smaller micro-batches may help.

    :raises _SmallerParts: when a step did not fit into memory, and the spec allows smaller parts of it
    """
    try:
        return fit(base, model, tokens, request, curve, recorder, validation)
    except Exception as error:
        size = math.ceil(request.settings["training"]["per_device_train_batch_size"] / recorder.parts)
        if not (is_out_of_memory(error) and request.execution.get("auto_find_batch_size") and size > 1):
            raise
    recorder.note(f"{size} examples at a time did not fit into memory; training continues with {math.ceil(size / 2)}.")
    raise _SmallerParts


def fit(
    base: Base,
    model: Any,
    tokens: Units,
    request: Request,
    curve: Curve,
    recorder: RunRecorder,
    validation: Validation | None = None,
) -> str:
    """Run the optimizer steps; return why training diverged, or nothing.

    The loss of a step is the sum over its supervised tokens divided by their number, however they were spread over the
    micro-batches that it accumulates.
    """
    settings = request.settings["training"]
    steps = total_steps(len(tokens), settings)
    stepper = Stepper(base, model, settings, steps, validation)
    done = recorder.begin(stepper, curve, steps)
    stepper.parts, stepper.count = recorder.parts, done
    blind = blind_loss(tokens if isinstance(tokens, Tokens) else tokens.tokens, base.choices)
    trouble = recorder.evaluate(stepper, curve)  # where the run was stopped before its last step was evaluated
    for epoch, group in islice(step_batches(tokens, settings, request.settings["seed"]), done, steps):
        if trouble or stepper.stops_early:
            break
        rate = stepper.optimizer_step.rate
        loss, norm = stepper.step(tokens, group, curve)
        curve.add(epoch, loss, rate, norm)
        trouble = curve.diverged(blind, settings, request.settings["model"]["dtype"])
        if not trouble:
            recorder.record_step(stepper, curve)
            trouble = recorder.evaluate(stepper, curve)
    stepper.optimizer_step.finish()
    return trouble


class Stepper(ResumableModel):
    """One optimizer step after another of one run."""

    def __init__(
        self, base: Base, model: Any, settings: dict[str, Any], steps: int, validation: Validation | None = None
    ) -> None:
        super().__init__(model, OptimizerStep(model, settings, steps, base.device), validation)
        self.base, self.settings = base, settings
        self.parts, self.count = 1, 0
        if validation is not None:
            validation.steps = steps

    @property
    def stops_early(self) -> bool:
        """Whether validation has not improved for long enough."""
        return self.validation is not None and self.validation.stopped

    def step(self, tokens: Units, group: list[list[Unit]], curve: Curve) -> tuple[float, float]:
        """Accumulate the gradients of some micro-batches and step; return the loss and the gradient's norm."""
        cut = split_micro_batches(group, self.settings["per_device_train_batch_size"], self.parts)
        batches = [self.base.collate(tokens, indexes) for indexes in cut]
        supervised = curve.count(batches)
        loss = 0.0
        for batch in batches:
            with autocast(self.base.device, self.settings):
                part = summed_loss(self.model, batch) / max(supervised, 1)
            self.optimizer_step.scaler.scale(part).backward()
            loss += float(part.detach())
        extra = penalty(self.model)
        if extra is not None:
            self.optimizer_step.scaler.scale(extra).backward()
        norm = float(self.optimizer_step.step())
        self.count += 1
        after_step(self.model, self.count)
        self.optimizer_step.optimizer.zero_grad(set_to_none=True)
        return loss, norm


def total_steps(examples: int, settings: dict[str, Any]) -> int:
    """Return the number of optimizer steps: `max_steps`, or the epochs' worth, a partial last group being a step."""
    if settings["max_steps"] > 0:
        return int(settings["max_steps"])
    batches = math.ceil(examples / settings["per_device_train_batch_size"])
    per_epoch = math.ceil(batches / settings["gradient_accumulation_steps"])
    steps: int = math.ceil(settings["num_train_epochs"] * per_epoch)
    return max(1, steps)


def step_batches(tokens: Units, settings: dict[str, Any], seed: int) -> Iterator[tuple[int, list[list[Unit]]]]:
    """Yield (epoch, micro-batches of one optimizer step) without end; a step never spans two epochs.

    The examples of a step are drawn together and then split, so that 2 × 4 sees those of 8 × 1, packed or not.
    """
    size, lengths = settings["per_device_train_batch_size"], tokens.lengths()
    for epoch in count():
        for step in epoch_order(lengths, size * settings["gradient_accumulation_steps"], seed, epoch):
            yield epoch, in_micro_batches(tokens, step, size)


def largest_step(tokens: Units, settings: dict[str, Any]) -> list[list[Unit]]:
    """Return the micro-batches of the step that takes most memory: the longest examples, or the fullest packed rows."""
    size = settings["per_device_train_batch_size"]
    steps = by_length(tokens.lengths(), size * settings["gradient_accumulation_steps"])
    if not isinstance(tokens, PackedExamples):
        return in_micro_batches(tokens, steps[0], size)

    sizes = tokens.lengths()

    def positions(group: list[list[Unit]]) -> int:
        rows: list[list[int]] = [[sum(sizes[index] for index in row) for row in part] for part in group]
        return max(len(part) * max(part) for part in rows)

    return max((in_micro_batches(tokens, step, size) for step in steps), key=positions)


def save(model: Any, request: Request, out: Path, figures: dict[str, Any]) -> list[str]:
    """Write what was trained and note its size."""
    if request.settings["adapter"]["method"] == "full":
        model.save_pretrained(out)
        files = sorted(file.name for file in out.iterdir() if file.suffix in (".safetensors", ".json"))
    else:
        files = save_adapter(model, request, out)
    figures["adapter_bytes"] = sum((out / name).stat().st_size for name in files if name.endswith(".safetensors"))
    return files


def _figures(model: Any, curve: Curve, seconds: float, evaluated: float) -> dict[str, Any]:
    trainable, total = parameter_counts(model)
    last = [row["loss"] for row in curve.rows[-10:]]
    return {
        "seconds": seconds,
        "steps": len(curve.rows),
        "tokens": curve.tokens,
        "supervised_tokens": curve.supervised,
        "tokens_per_second": curve.tokens / max(seconds - evaluated, 1e-9),
        "final_loss": sum(last) / len(last),
        "trainable_parameters": trainable,
        "total_parameters": total,
    }
