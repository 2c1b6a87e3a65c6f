"""`profile`: what a configuration costs, measured alone on the device in a fresh process."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorafile.engine.batching.batches import Batch, by_length, collate_prompts, prompt_batch
from lorafile.engine.batching.tokens import Tokens, Units, training_units
from lorafile.engine.inference.generation import generate
from lorafile.engine.model.adapters import checkpointed, load_tuned, new_adapter, stored_adapter
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.head import class_logits, load_tokens
from lorafile.engine.model.initialization import ModuleTree, module_tree, restore_modules
from lorafile.engine.model.loss import likelihoods
from lorafile.engine.model.peak_memory import LiveTensors, peak, reset_peak
from lorafile.engine.nodes.train import Stepper, largest_step, step_batches
from lorafile.engine.request import Report, Request, Result
from lorafile.engine.training.curve import Curve
from lorafile.environment import gpus
from lorafile.specs.tables.train import TrainTable

_EVALUATED, _EVALUATED_AT_ONCE = 4, 16  # batches, and examples in each
_ANSWERS = ("first_token_seconds", "token_seconds", "generate_seconds", "generate_spread")
Figures = dict[str, Any]
Lend = Callable[[], AbstractContextManager[Any]]


def profile(request: Request, _out: Path, bases: Bases, report: Report) -> Result:
    """Measure load, training steps, evaluation, and generation with the adapter attached and merged.

    The bare base is timed in turns with the attached adapter: a yardstick, which on an idle machine is the same for
    every profile of that base.
    """
    figures: Figures = {}
    tokens = load_tokens(request, "train")
    bases.drop()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reset_peak(device)
    started = time.perf_counter()
    base = load_tuned(request.settings, request.paths, request.inputs.get("adapter"), proven=False)
    base.synchronize()
    figures["load_seconds"] = time.perf_counter() - started
    _note(figures, "load", base, LiveTensors(base.model) if device.type == "cpu" else None)
    bare = module_tree(base.model)
    with _adapted(base, request, tokens) as model:
        if request.settings["adapter"]["method"] != "none" and "training" in request.settings:
            settings = request.settings["training"]
            with checkpointed(model, settings.get("gradient_checkpointing", False)):
                figures |= _train(base, model, training_units(tokens, model, settings)[0], request, report)
        figures |= _evaluate(base, model.eval(), tokens)
        if tokens.labels is not None:  # a head writes no text
            return Result(figures=figures)
        prompt = _prompt(base, tokens)
        attached: dict[str, Lend] = {"": lambda: nullcontext(model)}
        if model is not base.model:
            attached["base_"] = lambda: _bare(base.model, bare)
        figures |= _generate(base, attached, prompt, request)
        if model is base.model:  # without an adapter the model is its own yardstick
            figures |= {f"base_{name}": figures[name] for name in _ANSWERS if name in figures}
        if hasattr(model, "merge_and_unload"):
            merged = model.merge_and_unload()
            figures |= _generate(base, {"merged_": lambda: nullcontext(merged)}, prompt, request)
    return Result(figures=figures)


@contextlib.contextmanager
def _adapted(base: Base, request: Request, tokens: Tokens) -> Iterator[Any]:
    files = request.inputs.get("adapter", {})
    if "adapter_config.json" in files:
        with stored_adapter(base, files) as model:
            yield model
    elif request.settings["adapter"]["method"] not in ("full", "none"):
        protocol = request.settings["profile"]
        with new_adapter(base, request, tokens, protocol["warmup_steps"] + protocol["steps"]) as model:
            yield model
    else:
        base.model.requires_grad_(request.settings["adapter"]["method"] == "full")
        yield base.model


def _train(base: Base, model: Any, tokens: Units, request: Request, report: Report) -> Figures:
    """Peak memory of a step on the longest batch; then the time of ordinary steps, the device synchronised."""
    settings = {**TrainTable().model_dump(), **request.settings["training"]}
    protocol = request.settings["profile"]
    count = protocol["warmup_steps"] + protocol["steps"]
    stepper = Stepper(base, model.train(), settings, count)
    largest = largest_step(tokens, settings)
    figures: Figures = {}
    with _phase(figures, "train", base, model):
        for _ in range(2):  # the optimizer's moments exist from the first step on
            stepper.step(tokens, largest, Curve())
    seconds, curve, energy = [], Curve(), _energy()
    for number, (_, group) in enumerate(islice(step_batches(tokens, settings, 0), count)):
        if number == protocol["warmup_steps"]:
            curve, energy = Curve(), _energy()
        took = base.timed(lambda group=group, curve=curve: stepper.step(tokens, group, curve))  # type: ignore[misc]
        seconds += [took] if number >= protocol["warmup_steps"] else []
        report({"step": number + 1, "steps": count})
    figures["train_step_seconds"] = statistics.median(seconds)
    figures["tokens_per_second"] = curve.tokens / sum(seconds)
    figures["supervised_tokens_per_second"] = curve.supervised / sum(seconds)
    if energy is not None:
        figures["train_step_joules"] = ((_energy() or energy) - energy) / len(seconds)
    return figures


def _evaluate(base: Base, model: Any, tokens: Tokens) -> Figures:
    order = by_length(tokens.lengths(), _EVALUATED_AT_ONCE)[:_EVALUATED]
    batches = [base.collate(tokens, indexes) for indexes in order]
    figures: Figures = {}

    def evaluate() -> None:
        for batch in batches:
            likelihoods(model, batch) if batch.labels is None else class_logits(model, batch)

    with torch.inference_mode():
        with _phase(figures, "evaluate", base, model):
            evaluate()
        figures["evaluate_tokens_per_second"] = sum(batch.tokens for batch in batches) / base.timed(evaluate)
    return figures


@contextlib.contextmanager
def _bare(model: nn.Module, bare: ModuleTree) -> Iterator[nn.Module]:
    """Lend the base without PEFT's layers, which take time even where their adapter is switched off."""
    adapted = [(module, dict(module._modules)) for module, _ in bare]
    restore_modules(bare)
    try:
        yield model
    finally:
        restore_modules(adapted)


def _prompt(base: Base, tokens: Tokens) -> Batch:
    """Return the prompt of median length."""
    lengths = tokens.lengths()
    median = sorted(range(len(lengths)), key=lambda index: lengths[index])[len(lengths) // 2]
    batch = collate_prompts(tokens, [median], base.padding, base.device)
    if batch.input_ids.shape[1] == 0:  # plain text has no prompt: begin with its first token
        return prompt_batch(tokens.example(0)[0][:1].to(base.device))
    return batch


def _generate(base: Base, models: dict[str, Lend], prompt: Batch, request: Request) -> Figures:
    """Latency of one answer to one prompt: to the first token, for each token after it, and of all (medians).

    `generate_spread` tells a machine that does other work meanwhile: every repeat is the same work.

    :param models: prefix of the figures' names -> lends the model; they take turns, so that whatever else the machine
        does slows all of them alike
    """
    protocol = request.settings["profile"]
    new = protocol["new_tokens"]
    figures: Figures = {}
    seconds: dict[tuple[str, int], list[float]] = {}
    with torch.inference_mode():
        for prefix, lend in models.items():
            counted = prefix != "base_"  # next to an adapter its memory is not that of the base alone
            with lend() as model, _phase(figures, f"{prefix}generate", base, model) if counted else nullcontext():
                generate(base, model, prompt, new, new)
        for length in [1] * protocol["repeats"] + [new] * protocol["repeats"]:
            for prefix, lend in models.items():
                with lend() as model:
                    took = base.timed(lambda model=model, length=length: generate(base, model, prompt, length, length))  # type: ignore[misc]
                seconds.setdefault((prefix, length), []).append(took)
    for prefix in models:
        figures |= _latency(seconds[prefix, 1], seconds[prefix, new], new, prefix)
    return figures


def _latency(first: list[float], whole: list[float], new: int, prefix: str) -> Figures:
    """Return the figures of answers of one token and of all `new` ones."""
    middle, all_of_it = statistics.median(first), statistics.median(whole)
    figures = {f"{prefix}first_token_seconds": middle, f"{prefix}generate_seconds": all_of_it}
    if len(first) > 1:
        figures[f"{prefix}generate_spread"] = max(_spread(first), _spread(whole))
    if new > 1 and all_of_it > middle:  # below the noise of the clock it is not measured
        figures[f"{prefix}token_seconds"] = (all_of_it - middle) / (new - 1)
    return figures


def _spread(seconds: list[float]) -> float:
    """Return the interquartile range of times over their median."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return (high - low) / middle


@contextlib.contextmanager
def _phase(figures: Figures, name: str, base: Base, model: Any) -> Iterator[None]:
    """Note the peak memory of a phase; on a CPU its tensors are counted, which is why nothing is timed in it."""
    reset_peak(base.device)
    live = LiveTensors(model) if base.device.type == "cpu" else None
    with live or contextlib.nullcontext():
        yield
    _note(figures, name, base, live)


def _note(figures: Figures, name: str, base: Base, live: LiveTensors | None) -> None:
    figures[f"{name}_allocated_bytes"], figures[f"{name}_reserved_bytes"] = peak(base.device, live)


def _energy() -> float | None:
    """Return the joules that this process's GPUs have used since their driver was loaded, where they report them."""
    if not torch.cuda.is_available():
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByUUID(gpu["uuid"]) for gpu in gpus()]
        return sum(float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles) / 1000
    except pynvml.NVMLError:
        return None
