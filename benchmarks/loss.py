"""What the loss over a large vocabulary takes, forward and back: seconds and peak memory, in bfloat16.

    python benchmarks/loss.py --rows 1024 --words 128256

Next to ours: the backward pass as it was until 0.1 (the whole gradient multiplied at once), and torch's own loss on
float32 logits. Each way runs in a process of its own; memory is the rise of the process's peak (VmHWM), or torch's own
count on a GPU.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from lorafile.engine.model.loss import _CrossEntropies, cross_entropies


class _AtOnce(_CrossEntropies):
    """The backward pass in one multiplication."""

    @staticmethod
    def backward(ctx: Any, outward: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(outward[:, None]), None


WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "in pieces": cross_entropies,
    "at once": lambda logits, targets: _AtOnce.apply(logits, targets),
    "torch": lambda logits, targets: functional.cross_entropy(logits.float(), targets, reduction="none"),
}


def measured(way: str, rows: int, words: int, device: str, turns: int) -> dict[str, Any]:
    """Return the median seconds and the peak bytes above what was held before, of both passes."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    torch.manual_seed(0)
    start = torch.randn(rows, words, dtype=torch.bfloat16, device=device)
    targets = torch.randint(words, (rows,), device=device)
    found: dict[str, Any] = {"forward_s": [], "backward_s": [], "forward_bytes": [], "backward_bytes": []}
    for _ in range(turns):
        logits = start.clone().requires_grad_()
        held = _reset(device)
        began = _now(device)
        loss = (WAYS[way](logits, targets) / rows).sum()
        between = _now(device)
        peak = _peak(device) - held
        again = _reset(device)
        after = _now(device)
        loss.backward()
        ended = _now(device)
        found["forward_s"].append(between - began)
        found["backward_s"].append(ended - after)
        found["forward_bytes"].append(peak)
        found["backward_bytes"].append(_peak(device) - again)
        sums = float(logits.grad.double().abs().sum())
        del logits, loss
    return {name: statistics.median(values) for name, values in found.items()} | {"gradient": sums}


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _reset(device: str) -> int:
    """Begin to count the peak again; return the bytes that are held now."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device != "cpu" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _send(queue: Any, *arguments: Any) -> None:
    queue.put(measured(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--words", type=int, default=128_256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=5)
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for way in WAYS:
        queue = context.Queue()
        process = context.Process(
            target=_send, args=(queue, way, chosen.rows, chosen.words, chosen.device, chosen.turns)
        )
        process.start()
        found = queue.get()
        process.join()
        print(json.dumps({"way": way, "rows": chosen.rows, "words": chosen.words, "device": chosen.device} | found))


if __name__ == "__main__":
    main()
