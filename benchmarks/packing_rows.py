"""What `data.packing` gains: tokens/s of packed against unpacked training of one run, and that both have equal losses.

Run `python benchmarks/packing_rows.py --model DIR --data FILE.jsonl`; it prints a table and writes
`benchmarks/results/DATE-packing-rows-MODEL-DEVICE.json`. Two adapters of one seed are trained side by side on the same
examples, one with each example in a row, one with several in a row. They take their steps in turns. Seconds are those
of the processor where there is no GPU, because other work on a machine changes the clock more.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.tokens import PackedExamples, Tokens, Units, training_units
from lorafile.engine.model.adapters import new_adapter
from lorafile.engine.model.base import Base, load_base
from lorafile.engine.nodes.train import Stepper, step_batches
from lorafile.engine.quiet import quiet_libraries
from lorafile.engine.request import Request
from lorafile.engine.run import run
from lorafile.engine.training.curve import Curve
from lorafile.specs.tables.train import PACKED_ROW_LENGTH, TrainTable

HERE = Path(__file__).resolve().parent
WARM = 1  # steps
BATCHES = ((1, 8), (2, 4), (8, 1))  # per_device_train_batch_size, gradient_accumulation_steps
ADAPTER = {"method": "lora", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}


@dataclass
class Way:
    """One of the two trainings, and what its steps took."""

    name: str
    base: Base
    stepper: Stepper
    tokens: Units
    groups: list[tuple[int, list[list[Any]]]]
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def step(self, number: int) -> None:
        """Take a step."""
        began = self.now()
        loss, _ = self.stepper.step(self.tokens, self.groups[number][1], Curve())
        self.seconds.append(self.now() - began)
        self.losses.append(loss)

    def now(self) -> float:
        """Return the processor's time; on a GPU the clock, once it has done all that it was given."""
        self.base.synchronize()
        return time.perf_counter() if self.base.device.type == "cuda" else time.process_time()

    def row(self) -> dict[str, Any]:
        """Return what was measured, without the steps that warm up."""
        groups = [[self.base.collate(self.tokens, part) for part in parts] for _, parts in self.groups[WARM:]]
        tokens = [sum(batch.tokens for batch in group) for group in groups]
        computed = sum(batch.input_ids.numel() for group in groups for batch in group)
        return {
            "way": self.name,
            "tokens_per_second": sum(tokens) / sum(self.seconds[WARM:]),
            "passes_per_step": statistics.mean(map(len, groups)),
            "padding": 1 - sum(tokens) / computed,
            "seconds": self.seconds[WARM:],
            "losses": self.losses,
        }


def prepared(asked: argparse.Namespace, directory: Path) -> Path:
    """Tokenize the rows as a study does, without those that are no short ones."""
    data = {"format": "alpaca", "template": None, "columns": {}, "max_length": asked.longest, "too_long": "drop"}
    data |= {"completion_only_loss": True, "rows": {"seed": None, "start": 0, "stop": asked.rows}}
    paths = {"model": asked.model, "model_name": asked.model, "data": [asked.data], "split": "train"}
    request = Request("prepare", "prepare", "prepare", {"data": data}, paths | {"data_name": asked.data}, {}, {}, {})
    done = run(request, directory, None, lambda _: None)  # type: ignore[arg-type]
    if done.outcome != "done":
        raise SystemExit(done.message)
    return directory / "tokens.safetensors"


def measured(asked: argparse.Namespace, file: Path, size: int, accumulated: int) -> list[dict[str, Any]]:
    """Return a row for each way at one effective batch."""
    steps = WARM + asked.steps
    table = TrainTable(
        max_steps=steps, per_device_train_batch_size=size, gradient_accumulation_steps=accumulated, learning_rate=1e-4
    )
    ways = []
    with contextlib.ExitStack() as stack:
        for name, rows in (("unpacked", {}), ("packed", {PACKED_ROW_LENGTH: asked.max_length})):
            training = table.model_dump() | rows
            model = {"dtype": "float32", "trust_remote_code": False}
            settings = {"model": model, "quantization": None, "adapter": ADAPTER, "training": training, "seed": 0}
            request = Request(name, "train", name, settings, {"model": asked.model, "model_name": asked.model})
            base, documents = load_base(settings, request.paths), Tokens.load(file)
            adapted = stack.enter_context(new_adapter(base, request, documents, steps))
            tokens, _ = training_units(documents, adapted, training)
            groups = list(islice(step_batches(tokens, training, 0), steps))
            ways.append(Way(name, base, Stepper(base, adapted.train(), training, steps), tokens, groups))
        for number in range(steps):
            for way in ways:
                way.step(number)
        assert isinstance(ways[1].tokens, PackedExamples)
        return [{"batch": f"{size} x {accumulated}", **way.row()} for way in ways]


def compared(apart: dict[str, Any], packed: dict[str, Any]) -> dict[str, float]:
    """Return the ratio of the speeds, step by step on the same tokens, and how far the losses of any step are apart."""
    differences = (abs(one - other) for one, other in zip(apart["losses"], packed["losses"], strict=True))
    ratios = (one / other for one, other in zip(apart["seconds"], packed["seconds"], strict=True))
    return {"ratio": statistics.median(ratios), "largest_difference_of_losses": max(differences)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the directory of a causal language model")
    parser.add_argument("--data", required=True, help="a JSONL file of instruction, input and output")
    parser.add_argument("--rows", type=int, default=120, help="of the data")
    parser.add_argument("--longest", type=int, default=96, help="tokens of an example; longer ones are left out")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a packed row")
    parser.add_argument("--steps", type=int, default=4, help="of each way, after one that warms up")
    asked = parser.parse_args()
    quiet_libraries()
    print(f"{'batch':8} {'way':9} {'tokens/s':>9} {'passes':>7} {'padding':>8} {'ratio':>6} {'losses differ by':>17}")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        file = prepared(asked, Path(directory))
        lengths = Tokens.load(file).lengths()
        for size, accumulated in BATCHES:
            apart, packed = measured(asked, file, size, accumulated)
            packed |= compared(apart, packed)
            rows += [apart, packed]
            for row in (apart, packed):
                last = f"{row['ratio']:6.2f} {row['largest_difference_of_losses']:17.1e}" if "ratio" in row else ""
                print(
                    f"{row['batch']:8} {row['way']:9} {row['tokens_per_second']:9,.0f} {row['passes_per_step']:7.1f} "
                    f"{row['padding']:8.1%} {last}",
                    flush=True,
                )
    gpu = torch.cuda.is_available()
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {"device": torch.cuda.get_device_name() if gpu else "cpu", "cores": os.cpu_count()}
    about |= {"threads": torch.get_num_threads(), "load": os.getloadavg()[0], "python": platform.python_version()}
    about |= {name: version(name) for name in ("lorafile", "torch", "transformers", "peft")}
    about |= {"model": Path(asked.model).name, "data": Path(asked.data).name, "max_length": asked.max_length}
    about |= {"examples": len(lengths), "mean_length": statistics.mean(lengths), "steps": asked.steps, "rows": rows}
    name = (
        "-".join((about["date"], "packing-rows", about["model"], about["device"])).lower().replace(" ", "-") + ".json"
    )
    (HERE / "results" / name).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
