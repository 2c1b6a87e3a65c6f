"""Peak memory of published runs, walked on the meta device from hand-written configs, against what was measured.

Run `python benchmarks/published_memory.py`; it prints the table of docs/forecast.md and writes
`benchmarks/results/DATE-published-memory.json`. The runs, their sources and settings are in published_memory.toml.

Each run is walked twice: with the settings of the tool that was measured (the type of its adapters, its loss, its
version of bitsandbytes, torch.compile), which says how true a walk is; and as Lorafile would do it, which is what a
plan says.
"""

import contextlib
import json
import statistics
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from compiled_walk import FusedLoss, compiled_blocks
from torch import nn
from torch.nn import functional

from lorafile.engine.batching.batches import Batch
from lorafile.engine.model.loss import summed_loss
from lorafile.engine.quiet import quiet_libraries
from lorafile.engine.training import memory_walk
from lorafile.engine.training.memory_walk import Step, walk
from lorafile.plan.forecast.devices import CONTEXT
from lorafile.plan.forecast.memory import SLACK
from lorafile.specs.tables.quantizations import quantization_settings, weight_bits
from lorafile.specs.tables.train import TrainTable

HERE = Path(__file__).resolve().parent
UNITS = {"GB": 10**9, "GiB": 2**30}


@dataclass(frozen=True)
class Row:
    """A published run and what the walks say of it, in GB of 10^9 bytes."""

    source: str
    model: str
    vocabulary: int
    method: str
    batch: str
    quantity: str
    published: float
    walked: float
    lorafile: float
    estimate: bool

    @property
    def error(self) -> float:
        """How far the walk with the tool's settings is off."""
        return self.walked / self.published - 1

    @property
    def own_error(self) -> float:
        """How far a plan of Lorafile is from what the tool needed."""
        return self.lorafile / self.published - 1


def hidden_and_head(model: Any, batch: Batch) -> tuple[torch.Tensor, nn.Module]:
    """Return the last hidden states [b, t, d] and the layer that makes logits of them."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model(**batch.inputs)[0], inner.get_output_embeddings()


def at_once(model: Any, batch: Batch) -> torch.Tensor:
    """transformers' own loss: every position at once, in float32."""
    return cross_entropy(model(**batch.inputs).logits.float().flatten(0, 1))


def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
    """torch's loss over logits [n, vocabulary]."""
    return functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device="meta"))


def in_chunks(model: Any, batch: Batch, size: int, loss: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The head and the loss over some positions after the others; the logits of all stay until the backward pass."""
    hidden, head = hidden_and_head(model, batch)
    chunks = [head(part) for part in hidden.split(size, dim=1)]
    return torch.stack([loss(chunk.flatten(0, 1)) for chunk in chunks]).sum()


def in_eight(model: Any, batch: Batch, loss: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The same in eight chunks."""
    return in_chunks(model, batch, batch.input_ids.shape[1] // 8, loss)


LOSSES = {
    "engine": summed_loss,
    "float32": at_once,
    "chunks": lambda model, batch: in_chunks(model, batch, 128, cross_entropy),
    "float32 chunks": lambda model, batch: in_eight(model, batch, lambda chunk: cross_entropy(chunk.float())),
    "compiled chunks": lambda model, batch: in_eight(model, batch, FusedLoss.apply),
}


def walked(step: Step, loss: str, compiled: bool = False) -> int:
    """Return the bytes at the peak of a step with some loss, and with its blocks compiled or not."""
    memory_walk.summed_loss = LOSSES[loss]
    try:
        with compiled_blocks() if compiled else contextlib.nullcontext():
            return sum(vars(walk(step)).values())
    finally:
        memory_walk.summed_loss = summed_loss


def quantized(config: dict[str, Any], settings: dict[str, Any], with_head: bool) -> dict[str, int]:
    """Return the bytes of each linear layer that is quantized."""
    from transformers import AutoConfig, AutoModelForCausalLM

    bits, scales = weight_bits(settings, 16)
    fields = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    inner = {name: layer for name, layer in layers.items() if with_head or any(map(str.isdigit, name.split(".")))}
    return {name: int(layer.weight.numel() * (bits + scales) / 8) for name, layer in inner.items()}


def measure(run: dict[str, Any], config: dict[str, Any]) -> Row:
    """Walk a run with its own settings, and as Lorafile would do it."""
    name = run.get("quantization", "none")
    quantization = quantization_settings(name.removesuffix("-dq"))
    if quantization is not None and name == "nf4-dq":
        quantization |= {"bnb_4bit_use_double_quant": True}
    adapter = {"method": "lora", **run["adapter"]}
    training = TrainTable(gradient_checkpointing=run.get("checkpointing", False)).model_dump()
    settings = {"model": {"dtype": "bfloat16"}, "quantization": quantization, "adapter": adapter, "training": training}
    packed = {} if quantization is None else quantized(config, quantization, with_head=False)
    tokens = run["examples"] * run["length"]
    own = Step(config, settings, run["examples"], run["length"], tokens, packed)
    if quantization is not None and run.get("quantized_head"):
        packed = quantized(config, quantization, with_head=True)
    theirs = replace(own, config=config | run.get("computes", {}), packed=packed)
    theirs = replace(theirs, adapter_dtype=run.get("adapter_dtype", "float32"))
    theirs = replace(theirs, saves_inputs=run.get("saves_inputs", False), unpacked_dtype=run.get("unpacked_dtype", ""))
    compiled = run.get("compiled", False)
    peaks = (walked(theirs, "compiled chunks" if compiled else run["loss"], compiled), walked(own, "engine"))
    factor, more = {"allocated": (1.0, 0), "reserved": (SLACK, 0), "used": (SLACK, CONTEXT)}[run["quantity"]]
    sizes = [(peak * factor + more) / 1e9 for peak in peaks]
    method = (
        "full" if adapter["method"] == "full" else f"{'DoRA' if adapter.get('use_dora') else 'LoRA'} r={adapter['r']}"
    )
    method += {"none": "", "nf4-dq": ", nf4 twice"}.get(name, f", {name}")
    method += ", checkpointing" if run.get("checkpointing") else ""
    method += ", compiled" if run.get("compiled") else ""
    published = run["published"] * UNITS[run.get("unit", "GB")] / 1e9
    batch = f"{run['examples']} × {run['length']:,}"
    about = (run["name"], run["model"], config["vocab_size"], method, batch, run["quantity"], published)
    return Row(*about, *sizes, run.get("estimate", False))


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| source | model | vocabulary | run | batch | quantity | published | walked | error | Lorafile | error |",
        "|---|---|---:|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        mark = " (an estimate)" if row.estimate else ""
        run = f"{row.source} | {row.model} | {row.vocabulary:,} | {row.method} | {row.batch} | {row.quantity}"
        sizes = f"{row.published:.2f}{mark} | {row.walked:.2f} | {row.error:+.0%}"
        lines.append(f"| {run} | {sizes} | {row.lorafile:.2f} | {row.own_error:+.0%} |")
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """Say the median and the worst error of what was measured."""
    counted = [row for row in rows if not row.estimate]
    lines = []
    for what, errors in (
        ("walked with the tool's settings", [abs(row.error) for row in counted]),
        ("as Lorafile would do it", [abs(row.own_error) for row in counted]),
    ):
        over = sum(error > 0.25 for error in errors)
        worst = f"worst {max(errors):.0%}, {over} of {len(errors)} above 25 %"
        lines.append(f"{what}: median error {statistics.median(errors):.1%}, {worst}")
    return "\n".join(lines)


def main() -> None:
    quiet_libraries()
    content = tomllib.loads((HERE / "published_memory.toml").read_text(encoding="utf-8"))
    rows = []
    for number, run in enumerate(content["runs"], 1):
        whole = content["sources"][run["source"]] | run
        rows.append(measure(whole, content["models"][run["model"]]))
        print(f"[{number}/{len(content['runs'])}] {rows[-1]}", file=sys.stderr, flush=True)
    print(table(rows))
    print(summary(rows))
    out = HERE / "results" / f"{datetime.now(UTC).date().isoformat()}-published-memory.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"torch": torch.__version__, "rows": [vars(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
