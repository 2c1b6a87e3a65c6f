"""The part of `gpu.py` about trainers: TRL next to the built-in loop on a 4-bit base, and a run that does not fit."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shapes import Shape, config_of, tiny
from transformers import AutoModelForCausalLM

from lorafile.engine.data.sources import find_model
from lorafile.state import Attempt, State

ROOT = Path(__file__).resolve().parents[1]
LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
BATCH, STEPS = 8, 10
ROWS, WORDS = 512, 1000  # of the batch that no GPU holds: its logits alone take 130 GB
_FIGURES = ("steps", "tokens_per_second", "final_loss", "process_peak_bytes", "process_gpu_peak_bytes")
SPEC = """
[study]
name = "trainers"
seeds = [1]
[model]
path = "model"
[data]
path = "rows.jsonl"
max_length = 2048
split = {{ train = {rows}, test = 8 }}
[lora]
r = 16
lora_dropout = 0.0
[train]
bf16 = true
max_steps = {steps}
[trainer.trl-sft]
command = ["python", "train_sft.py"]
python = "{python}"
[evaluate]
metrics = ["log_loss"]
[profile]
enabled = false
[[sweep]]
name = "trainers"
quantization = ["nf4"]
train.trainer = ["builtin", "trl-sft"]
train.per_device_train_batch_size = {batches}
"""

Row = dict[str, Any]


def compare(shape: Shape, cpu: bool, tell: Callable[[Row], None]) -> None:
    """Train by TRL and by the built-in loop; then, on a GPU, with a batch that does not fit, and once more after it.

    :raises RuntimeError: when a run ends in another way than it should
    """
    shape = replace(tiny(shape), vocabulary=1024) if cpu else shape  # the tokenizer has 563
    with tempfile.TemporaryDirectory() as directory:
        where = Path(directory)
        _write_model(shape, where / "model", cpu)
        for program in (ROOT / "examples" / "trainers").glob("*.py"):
            shutil.copy(program, where)
        words = ["tok", *(str(number % 10) for number in range(20 if cpu else WORDS))]
        row = {"prompt": " ".join(words[:5]), "completion": " ".join(words)}
        with (where / "rows.jsonl").open("w") as stream:
            for number in range(ROWS + 8):
                stream.write(json.dumps({**row, "prompt": f"{number} {row['prompt']}"}) + "\n")
        batches = [BATCH] if cpu else [BATCH, ROWS]
        spec = SPEC.format(rows=ROWS, steps=STEPS, python=sys.executable, batches=batches)
        (where / "study.toml").write_text(spec, encoding="utf-8")
        began = time.perf_counter()
        subprocess.run([*LORA, "apply", "study.toml", "--yes", "--workers", "1"], cwd=where, check=False)
        attempts = [every[-1] for every in State.read(where / ".lora").latest().values() if every[-1].kind == "train"]
    tell({"case": "apply", "seconds": time.perf_counter() - began, "nodes": len(attempts)})
    for attempt in sorted(attempts, key=lambda one: one.address):
        tell(_row(attempt))
    for attempt in attempts:
        wanted = "out-of-memory" if f"size={ROWS}" in attempt.address else "done"
        if attempt.outcome != wanted:
            raise RuntimeError(f"{attempt.address} ended as {attempt.outcome}: {attempt.message}")


def _write_model(shape: Shape, where: Path, cpu: bool) -> None:
    """Write a random model of a shape, with the tokenizer of the built-in one."""
    with torch.device("cpu" if cpu else "cuda"):
        model = AutoModelForCausalLM.from_config(config_of(shape), dtype=torch.bfloat16)
    shutil.copytree(find_model("builtin:facts-llama", None, Path()), where)
    (where / "model.safetensors").unlink()
    model.save_pretrained(where)


def _row(attempt: Attempt) -> Row:
    found = {f"run_{name}": attempt.figures[name] for name in _FIGURES if name in attempt.figures}
    return {"case": attempt.address, "outcome": attempt.outcome, "seconds": attempt.seconds, **found}
