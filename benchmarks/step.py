"""How long a training step takes, next to plain PEFT and TRL's SFTTrainer, on a real model that is given.

Run `python benchmarks/step.py --model DIR`; it prints a table and writes
`benchmarks/results/DATE-step-MODEL-DEVICE.json`. One LoRA on an unquantized base, the same random examples and batches
for all. The ways take turns, and a ratio is of one turn. What comes before the first steps is not counted: starting,
loading, preparing. TRL (`pip install trl`) runs with its defaults, but without recomputing activations and without
mixed precision, which the others do not use either.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pack_ways import ADAPTER, Stamps, Task, by_peft, by_tool, write_tokens
from shapes import Shape

from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.base import load_base
from lorafile.engine.quiet import quiet_libraries
from lorafile.specs.tables.train import TrainTable

HERE = Path(__file__).resolve().parent


def by_trl(model: Path, dtype: str) -> Callable[[Task, int, Stamps], None]:
    """Return a way that trains by TRL on the tokens of a task."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Stamper(TrainerCallback):
        def __init__(self, stamps: Stamps) -> None:
            self.stamps = stamps

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.stamps({"step": state.global_step})

    def take(task: Task, steps: int, stamps: Stamps) -> None:
        data = Tokens.load(task.data)
        rows = [
            {"input_ids": ids.tolist(), "completion_mask": supervised.long().tolist()}
            for ids, supervised in map(data.example, range(len(data)))
        ]
        options = {"bf16": False, "gradient_checkpointing": False, "use_cpu": not torch.cuda.is_available()}
        with tempfile.TemporaryDirectory() as directory:
            arguments = SFTConfig(
                directory,
                per_device_train_batch_size=len(rows),
                max_steps=steps,
                learning_rate=1e-4,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                max_length=None,
                **options,
            )
            settings = {name: value for name, value in ADAPTER.items() if name != "method"}
            trainer = SFTTrainer(
                model=AutoModelForCausalLM.from_pretrained(model, dtype=dtype),
                args=arguments,
                train_dataset=Dataset.from_list(rows * steps),
                processing_class=AutoTokenizer.from_pretrained(model),
                peft_config=LoraConfig(**settings, task_type="CAUSAL_LM"),
                callbacks=[Stamper(stamps)],
            )
            trainer.train()

    return take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a directory with a checkpoint and its tokenizer")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="that are timed, in each turn")
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    quiet_libraries()
    base = load_base(
        {"model": {"dtype": asked.dtype, "trust_remote_code": False}, "quantization": None},
        {"model": str(asked.model)},
        proven=False,
    )
    shape = Shape(asked.model.name, path=str(asked.model), batch=asked.batch, length=asked.length)
    training = TrainTable(per_device_train_batch_size=asked.batch, learning_rate=1e-4).model_dump()
    ways = {"lorafile": by_tool, "PEFT": by_peft, "TRL": by_trl(asked.model, asked.dtype)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as directory:
        task = Task(base, write_tokens(shape, base, Path(directory)), training, 1)
        for _ in range(asked.turns):
            for name, way in ways.items():
                stamps = Stamps()
                way(task, 1 + asked.steps, stamps)
                seconds[name].append(statistics.median(stamps.each()))
    rows = {
        name: {
            "step_seconds": statistics.median(found),
            "times_ours": statistics.median(a / b for a, b in zip(found, seconds["lorafile"], strict=True)),
            "turns": found,
        }
        for name, found in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name:10} {row['step_seconds']:8.3f} s a step  {row['times_ours']:5.2f} times ours")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {"device": device, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
    about |= {name: version(name) for name in ("lorafile", "torch", "transformers", "peft", "trl")}
    about |= {"model": asked.model.name, "dtype": asked.dtype, "batch": asked.batch, "length": asked.length}
    name = f"{about['date']}-step-{asked.model.name.lower()}-{device.lower().replace(' ', '-')}.json"
    (HERE / "results" / name).write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
