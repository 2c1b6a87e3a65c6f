"""The ways to train that are compared: the tool, one adapter or several together, and plain PEFT."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from shapes import Shape

from lorafile.engine.batching.batches import collate
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.adapters import autocast, new_adapter
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.nodes.train import train
from lorafile.engine.packing.train import train_together
from lorafile.engine.request import Request

ADAPTER = {"method": "lora", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
WARM = 1  # steps that are not timed


class Lent(Bases):
    """A base that is in memory already: lent to every run, and not proven unchanged, which would be timed, too."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self._lent = base

    @contextlib.contextmanager
    def proven(self, *_: Any) -> Iterator[Base]:
        yield self._lent


class Stamps:
    """Notes when each step of a run was done on the device, and how often the processor had waited for it by then."""

    def __init__(self, waits: Sequence[Any] = ()) -> None:
        self.times: list[float] = []
        self.waited: list[int] = []
        self._waits = waits

    def __call__(self, progress: dict[str, Any]) -> None:
        if "step" in progress:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())
            self.waited.append(sum("synchroniz" in str(one.message) for one in self._waits))

    def seconds(self) -> float:
        """Return the seconds of a step: the mean of those after the warm ones."""
        return (self.times[-1] - self.times[WARM - 1]) / (len(self.times) - WARM)

    def each(self) -> list[float]:
        """Return the seconds of every step after the warm ones."""
        return [end - begin for begin, end in pairwise(self.times[WARM - 1 :])]


@dataclass(frozen=True)
class Task:
    """Steps to take: a base, its data, and how many adapters train on it.

    :ivar data: `tokens.safetensors`, a micro-batch for each step
    """

    base: Base
    data: Path
    training: dict[str, Any]
    width: int

    def requests(self, steps: int) -> list[Request]:
        """Return what the engine is asked, an adapter for each seed."""
        training = {**self.training, "max_steps": steps}
        asked = {"model": {"dtype": "float32"}, "quantization": None, "adapter": ADAPTER, "training": training}
        inputs = {"train": {self.data.name: str(self.data)}}
        return [
            Request(f"key{seed}", "train", f"pack/{seed}", {**asked, "seed": seed}, {"model_name": "made"}, inputs)
            for seed in range(self.width)
        ]


def by_tool(task: Task, steps: int, stamps: Stamps) -> None:
    """Train as the tool does: one adapter alone, or several together."""
    requests, bases = task.requests(steps), Lent(task.base)
    silent = [stamps, *([lambda _: None] * (task.width - 1))]
    with tempfile.TemporaryDirectory() as directory:
        outs = [Path(directory) / str(number) for number in range(task.width)]
        for out in outs:
            out.mkdir()
        if task.width == 1:
            train(requests[0], outs[0], bases, stamps)
        else:
            train_together(requests, outs, bases, silent)


def by_peft(task: Task, steps: int, stamps: Stamps) -> None:
    """Train one adapter by PEFT and transformers alone: their loss over all logits, and torch's AdamW."""
    (request,), size = task.requests(steps), task.training["per_device_train_batch_size"]
    data = Tokens.load(task.data)
    with new_adapter(task.base, request, data, steps) as model:
        trained = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=task.training["learning_rate"], weight_decay=0.0)
        for number in range(steps):
            batch = collate(data, [*range(size)], 0, task.base.device)
            labels = batch.input_ids.masked_fill(~batch.supervised, -100)
            with autocast(task.base.device, task.training):
                given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
                loss = model(**given, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, task.training["max_grad_norm"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            stamps({"step": number + 1, "loss": loss.item()})


def write_tokens(shape: Shape, base: Base, directory: Path) -> Path:
    """Write a micro-batch of random examples, of each of which the second half is supervised."""
    size = shape.batch * shape.length
    words = base.model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(4, words, (size,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    marks = (torch.arange(size) % shape.length >= shape.length // 2).to(torch.uint8)
    begins = torch.arange(0, size + 1, shape.length)
    file = directory / "tokens.safetensors"
    Tokens(ids, marks, begins, torch.full((shape.batch,), shape.length // 2)).save(file)
    return file
