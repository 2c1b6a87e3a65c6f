"""`inspect`: what is inside a finished adapter, and how far it moved the model's representations."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lorafile.engine.batching.batches import by_length
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.adapters import parameter_counts, tuned_model
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.head import load_tokens, takes
from lorafile.engine.model.updates import Row, adapter_updates, full_updates, place
from lorafile.engine.request import Report, Request, Result, examples_at_once
from lorafile.files.jsonl import write_lines

# VeRA saves its frozen projections, too; nothing of them is trained.
_NOT_TRAINED = (".vera_A", ".vera_B")
_MOST_POSITIONS = 2048  # of all examples together, evenly spread: what is kept of every layer


def inspect(request: Request, out: Path, bases: Bases, report: Report) -> Result:
    """Count parameters, measure every update, and compare hidden states with the base's on held-out text."""
    tokens = load_tokens(request, "data")
    with bases.proven(request.settings, request.paths) as base:
        names = {name for name, _ in base.model.named_modules()}
        before = hidden_states(base, base.model.eval(), tokens, request, report)
    with tuned_model(bases, request) as (base, model):
        after = hidden_states(base, model, tokens, request, report)
        if "adapter_config.json" in request.inputs["adapter"]:
            updates = {row["module"]: row for row in adapter_updates(model)}
        else:
            updates = {row["module"]: row for row in full_updates(model, Path(request.paths["model"]))}
        total = parameter_counts(model)[1]
    sizes = trained_sizes(request.inputs["adapter"], names)
    modules = [
        {**place(module), **updates.get(module, {}), "parameters": sizes.get(module, 0)}
        for module in sorted({*sizes, *updates}, key=_order)
    ]
    drift = [{"layer": layer, "cka": linear_cka(x, y)} for layer, (x, y) in enumerate(zip(before, after, strict=True))]
    write_lines(out / "modules.jsonl.gz", modules)
    write_lines(out / "representations.jsonl.gz", drift)
    figures = summary(modules, drift, total) | {"positions": len(before[0])}
    return Result(figures=figures, files=["modules.jsonl.gz", "representations.jsonl.gz"])


def hidden_states(base: Base, model: Any, tokens: Tokens, request: Request, report: Report) -> list[torch.Tensor]:
    """Return of the embeddings and of each block its output [n, d] at the same n positions of held-out text.

    The first token of an example is left out: a model parks huge activations there (Sun et al. 2024, "Massive
    Activations in Large Language Models"), which would decide every comparison alone.
    """
    count = min(request.settings["inspection"]["examples"], len(tokens))
    batches = by_length(tokens.lengths()[:count], examples_at_once(request))
    every = max(1, -(-sum(length - 1 for length in tokens.lengths()[:count]) // _MOST_POSITIONS))
    options = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    states: list[list[torch.Tensor]] = []
    with torch.inference_mode():
        for number, indexes in enumerate(batches, 1):
            batch = base.collate(tokens, indexes)
            output = model(**batch.inputs, **options, output_hidden_states=True)
            real = batch.attention_mask.bool()
            real[:, 0] = False
            if batch.position_ids is not None:
                real &= batch.position_ids > 0
            width = real.shape[1]  # prompt tuning puts tokens of its own before the text
            kept = [state[:, -width:][real][::every].float().cpu() for state in output.hidden_states]
            states = states or [[] for _ in kept]
            for layer, state in zip(states, kept, strict=True):
                layer.append(state)
            report({"step": number, "steps": len(batches)})
    return [torch.cat(layer) for layer in states]


def trained_sizes(files: dict[str, str], names: set[str]) -> dict[str, int]:
    """Return module of the base -> number of trained parameters stored for it; `prompt_embeddings` stands alone."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for file in sorted(path for name, path in files.items() if name.endswith(".safetensors")):
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 (a file, not a dictionary)
                if not name.endswith(_NOT_TRAINED):
                    parts = name.removeprefix("base_model.model.").split(".")
                    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
                    # The innermost module of the base that the tensor belongs to, or what it is called.
                    module = next((prefix for prefix in prefixes if prefix in names), parts[0])
                    shape = stream.get_slice(name).get_shape()
                    sizes[module] = sizes.get(module, 0) + int(torch.Size(shape).numel())
    return sizes


def _order(module: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in module.split(".")]


def summary(modules: list[Row], drift: list[Row], total: int) -> dict[str, Any]:
    """Return the figures of one adapter; what is defined for no module is left out."""
    trained = sum(row["parameters"] for row in modules)
    figures: dict[str, Any] = {"trainable_parameters": trained, "total_parameters": total}
    figures |= {"trainable_share": trained / total, "adapted_modules": sum("frobenius" in row for row in modules)}
    for name in ("relative_norm", "effective_rank", "stable_rank", "energy_rank"):
        values = _defined(row.get(name) for row in modules)
        if values:
            figures |= {name: fmean(values), f"{name}_max": max(values)}
    norms = _defined(row.get("frobenius") for row in modules)
    if norms:
        figures["update_norm"] = sum(norm**2 for norm in norms) ** 0.5
    similar = _defined(row["cka"] for row in drift)
    if similar:
        figures |= {"cka_min": min(similar), "cka_last": drift[-1]["cka"]}
    return figures


def _defined(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and value == value]  # a NaN is not itself


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the linear centred kernel alignment of x [n, p] and y [n, q]: 1 for equal, 0 for unrelated.

    ‖YᵀX‖_F² / (‖XᵀX‖_F ‖YᵀY‖_F) with centred columns (Kornblith et al. 2019, "Similarity of Neural Network
    Representations Revisited", eq. 5). Computed in float64 with whichever Gram matrices are smaller. NaN where one
    side does not vary at all.
    """
    x, y = (side.double() - side.double().mean(dim=0) for side in (x, y))
    if len(x) < max(x.shape[1], y.shape[1]):
        k, m = x @ x.T, y @ y.T
        cross, norm = float((k * m).sum()), float(k.norm() * m.norm())
    else:
        cross, norm = float((y.T @ x).square().sum()), float((x.T @ x).norm() * (y.T @ y).norm())
    return min(cross / norm, 1.0) if norm > 0 else float("nan")
