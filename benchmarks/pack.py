"""What is gained by training K adapters together on one base: tokens/s, FLOP utilisation and peak memory against K.

Run `python benchmarks/pack.py`; it prints a table and writes `benchmarks/results/DATE-pack-DEVICE.json`. On a GPU it
takes random Llamas of 0.1 B to 7 B shape in bfloat16 and nf4, on a CPU three small models. K = 1 is how the tool
trains one adapter; `PEFT` is the same step by plain PEFT, transformers' own loss and AdamW, one adapter after another.
All ways are timed in turns; `FLOPs` is the share of a matrix product's speed that a frozen base's own operations reach.
"""

import argparse
import contextlib
import functools
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pack_ways import ADAPTER, WARM, Stamps, Task, by_peft, by_tool, write_tokens
from shapes import SHAPES, Shape, flops, made

from lorafile.engine.model.base import Base
from lorafile.engine.model.fingerprint import held_tensors
from lorafile.engine.model.peak_memory import LiveTensors, is_out_of_memory, peak, reset_peak
from lorafile.engine.quiet import quiet_libraries
from lorafile.specs.tables.train import TrainTable

HERE = Path(__file__).resolve().parent
WIDTHS = (1, 2, 4, 8, 16)
SECONDS, FEWEST, MOST = 20.0, 3, 15  # of timed turns for each model


def measured(shape: Shape, dtype: str, device: torch.device, widths: list[int], best: float) -> list[dict[str, Any]]:
    """Return a row for each way that fits: the memory of its steps, then its time, all ways in turns.

    :param best: operations per second of the fastest matrix product
    """
    base = made(shape, dtype, device)
    training = TrainTable(
        per_device_train_batch_size=shape.batch, learning_rate=1e-4, bf16=dtype != "float32"
    ).model_dump()
    with tempfile.TemporaryDirectory() as directory:
        data = write_tokens(shape, base, Path(directory))
        ways = [("PEFT", by_peft, 1), *((f"K={width}", by_tool, width) for width in widths)]
        rows, takes = [], []
        for name, way, width in ways:
            row = {"model": shape.name, "dtype": dtype, "way": name, "adapters": width}
            take = functools.partial(way, Task(base, data, training, width))
            try:
                rows.append(row | memory(base, take))
                takes.append(take)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                print(f"{shape.name:9} {dtype:9} {name:5} does not fit into memory", flush=True)
        seconds = timed(device, takes)
    return [row | speed(shape, base, row, took, seconds[1], best) for row, took in zip(rows, seconds, strict=True)]


def speed(
    shape: Shape, base: Base, row: dict[str, Any], took: list[float], one: list[float], best: float
) -> dict[str, Any]:
    """Return tokens and operations per second of a way, and its ratio to K = 1, turn by turn."""
    size = shape.batch * shape.length
    tokens = statistics.median(row["adapters"] * size / seconds for seconds in took)
    ratio = statistics.median(row["adapters"] * other / seconds for seconds, other in zip(took, one, strict=True))
    needed = flops(base.model, size, size // 2, shape.length) / size * tokens
    found = {"tokens_per_second": tokens, "ratio_to_one": ratio, "turns": len(took)}
    return found | {"operations_per_second": needed, "utilisation": needed / best}


def memory(base: Base, take: Callable[[int, Stamps], None]) -> dict[str, float]:
    """Return the peaks of a short run, its setup included, next to what the base holds; and how a GPU is waited for."""
    reset_peak(base.device)
    weights = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in held_tensors(base.model)}
    gpu = base.device.type == "cuda"
    live = None if gpu else LiveTensors(base.model)
    with live or contextlib.nullcontext(), waits(gpu) as seen:
        stamps = Stamps(seen)
        take(WARM + 1, stamps)
    names = ("allocated_bytes", "reserved_bytes") if gpu else ("live_bytes", "resident_bytes")
    found: dict[str, float] = dict(zip(names, peak(base.device, live), strict=True))
    found["base_bytes"] = sum(weights.values())
    return found | ({"waits_per_step": stamps.waited[-1] - stamps.waited[-2]} if gpu else {})


@contextlib.contextmanager
def waits(gpu: bool) -> Iterator[list[Any]]:
    """Yield what torch's own debug mode says each time the processor waits for the GPU."""
    if not gpu:
        yield []
        return
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode("default")


def timed(device: torch.device, takes: list[Callable[[int, Stamps], None]]) -> list[list[float]]:
    """Return the seconds of a step of each way, one for each turn; in a turn every way takes its steps."""
    found: list[list[float]] = [[] for _ in takes]
    began = time.perf_counter()
    for turn in range(MOST):
        if turn >= FEWEST and time.perf_counter() - began > SECONDS:
            break
        for seconds, take in zip(found, takes, strict=True):
            stamps = Stamps()
            take(WARM + (10 if device.type == "cuda" else 2), stamps)
            seconds.append(stamps.seconds())
    return found


def product_peak(device: torch.device, dtype: str) -> float:
    """Return the operations per second of a large matrix product: 2 n³ in the shortest of twenty."""
    kind = torch.bfloat16 if dtype == "nf4" else getattr(torch, dtype)
    size = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    found = []
    for _ in range(20):
        wait(device)
        began = time.perf_counter()
        one @ other
        wait(device)
        found.append(time.perf_counter() - began)
    return 2 * size**3 / min(found)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def line(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    kinds = ("allocated", "reserved") if "allocated_bytes" in row else ("live", "resident")
    sizes = " ".join(f"{row[f'{kind}_bytes'] / 2**20:11,.1f}" for kind in (*kinds, "base"))
    return (
        f"{row['model']:9} {row['dtype']:9} {row['way']:5} {row['tokens_per_second']:11,.0f} "
        f"{row['ratio_to_one']:6.2f} x {row['utilisation']:6.1%} {sizes}"
    )


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usual = [shape.name for shape in SHAPES if ("nf4" in shape.dtypes) == (device.type == "cuda")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=usual, choices=[shape.name for shape in SHAPES])
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS, help="besides 1")
    asked = parser.parse_args()
    quiet_libraries()
    widths = sorted({1, *asked.widths})
    print(f"{'model':9} {'dtype':9} {'way':5} {'tokens/s':>11} {'to K=1':>8} {'FLOPs':>7}", end=" ")
    names = ("allocated", "reserved") if device.type == "cuda" else ("live", "resident")
    print(*(f"{name + ' MiB':>11}" for name in (*names, "base")), flush=True)
    rows, peaks = [], {}
    for shape in SHAPES:
        for dtype in shape.dtypes if shape.name in asked.models else ():
            peaks[dtype] = peaks.get(dtype) or product_peak(device, dtype)
            rows += measured(shape, dtype, device, widths, peaks[dtype])
            print(
                *(line(row) for row in rows if (row["model"], row["dtype"]) == (shape.name, dtype)),
                sep="\n",
                flush=True,
            )
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "cores": os.cpu_count()}
    about |= {"threads": torch.get_num_threads(), "load": os.getloadavg()[0], "python": platform.python_version()}
    about |= {name: version(name) for name in ("lorafile", "torch", "transformers", "peft")}
    write({**about, "product_operations_per_second": peaks, "adapter": ADAPTER, "rows": rows})


def write(found: dict[str, Any]) -> None:
    """Write the results; of a run over other models on the same day and device, the rows stay."""
    file = HERE / "results" / f"{found['date']}-pack-{found['device'].lower().replace(' ', '-')}.json"
    file.parent.mkdir(exist_ok=True)
    measured = {(row["model"], row["dtype"]) for row in found["rows"]}
    before = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    found["rows"] = [row for row in before if (row["model"], row["dtype"]) not in measured] + found["rows"]
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
