"""What `gpu.py` measures in a process of its own: training, generation, the quickstart, and the tests of CUDA.

Each part is a function that is given whether it runs on the CPU, in small, and a function to tell a row with.
"""

import contextlib
import functools
import json
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from gpu_forecast import Forecast, forecast
from gpu_trainers import compare
from pack import product_peak, wait
from pack_ways import WARM, Stamps, Task, by_peft, by_tool, write_tokens
from shapes import LLAMA_3, Shape, flops, made, tiny
from transformers import GenerationConfig

from lorafile.engine.batching.batches import Batch
from lorafile.engine.inference.decoding import Rules, decode
from lorafile.engine.model.base import Base
from lorafile.engine.model.peak_memory import LiveTensors, is_out_of_memory, peak, reset_peak
from lorafile.engine.quiet import quiet_libraries
from lorafile.environment import device_class, installed
from lorafile.plan.forecast import devices
from lorafile.plan.forecast.calibration import peak_of
from lorafile.plan.forecast.meta_device import walked
from lorafile.specs.tables.train import TrainTable
from lorafile.state import Attempt, State

ROOT = Path(__file__).resolve().parents[1]
LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
TARGETS = ("rank/r=8", "quantization/quantization=nf4", "baselines/method=full")
PROMPTS, NEW_TOKENS = 256, 128
TESTS = (  # those that are about a GPU
    "engine/packing/test_packing_cuda.py",
    "engine/model/test_attention.py::test_a_base_computes_in_blocks_unless_the_spec_names_its_attention",
    "engine/model/test_base.py::test_attention_is_computed_as_the_spec_says",
)
TESTS_SECONDS = 105.0

Row = dict[str, Any]
Tell = Callable[[Row], None]


@dataclass(frozen=True)
class Way:
    """One way to train on a base.

    :ivar width: adapters together; `peft`: one, by plain PEFT
    :ivar steps: that are timed
    :ivar checkpointing: activations are computed again: without it the step would not fit
    """

    width: int = 1
    steps: int = 10
    checkpointing: bool = False
    peft: bool = False

    @property
    def name(self) -> str:
        """What it is called in a row."""
        return "PEFT" if self.peft else f"K={self.width}" + (", checkpointing" if self.checkpointing else "")


PEFT = Way(peft=True)


def train(shape: Shape, dtype: str, ways: tuple[Way, ...], cpu: bool, tell: Tell) -> None:
    """Train adapters on a random base in some ways, one after another.

    Their forecasts are walked meanwhile, in a process that computes nothing on the device.
    """
    device = torch.device("cpu" if cpu else "cuda")
    shape = tiny(shape) if cpu else shape
    began = time.perf_counter()
    base = made(shape, dtype, device)
    wait(device)
    tell({"case": "base", "model": shape.name, "dtype": dtype, "seconds": time.perf_counter() - began})
    settings = [_training(shape, way) for way in ways]
    estimated = [forecast(shape, dtype, one, way.width) for one, way in zip(settings, ways, strict=True)]
    product = product_peak(device, dtype if dtype == "nf4" else "bfloat16")
    rows: list[Row] = []
    with ThreadPoolExecutor(1) as pool, tempfile.TemporaryDirectory() as directory:
        walks = pool.submit(_walks, estimated)
        data = write_tokens(shape, base, Path(directory))
        for way, training, told in zip(ways, settings, estimated, strict=True):
            about = {"case": way.name, "model": shape.name, "dtype": dtype, "adapters": way.width}
            about |= {"batch": shape.batch, "length": shape.length, "arithmetic_bytes": int(told.together)}
            take = functools.partial(by_peft if way.peft else by_tool, Task(base, data, training, way.width))
            row = about | _measured(base, take, 2 if cpu else way.steps)
            rows.append(_with_shares(row, base, told, product, rows))
            tell(rows[-1])
        _tell_forecasts(rows, estimated, walks, tell)


def _training(shape: Shape, way: Way) -> dict[str, Any]:
    settings = {"per_device_train_batch_size": shape.batch, "gradient_checkpointing": way.checkpointing}
    return TrainTable(**settings, learning_rate=1e-4, bf16=True).model_dump()


def _measured(base: Base, take: Callable[[int, Stamps], None], steps: int) -> Row:
    """Return the seconds of a step and the peak memory; or an error, after which others may go on."""
    reset_peak(base.device)
    live = LiveTensors(base.model) if base.device.type == "cpu" else None
    stamps = Stamps()
    try:
        with live or contextlib.nullcontext():
            take(WARM + steps, stamps)
        if len(stamps.times) != WARM + steps:
            raise RuntimeError(f"training ended after {len(stamps.times)} of {WARM + steps} steps")
    except Exception as error:
        short = "does not fit into memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        return {"error": short[:500]}
    allocated, reserved = peak(base.device, live)
    seconds = {"step_seconds": statistics.median(stamps.each()), "steps_seconds": stamps.each()}
    return {**seconds, "allocated_bytes": allocated, "reserved_bytes": reserved}


def _with_shares(row: Row, base: Base, told: Forecast, product: float, before: list[Row]) -> Row:
    """Return a row with tokens per second, operations as shares of what the device can do, and ratios to others.

    `share_of_peak` takes 4 operations for each parameter and token, as published figures do, and the device's peak as
    devices.py has it: of a known GPU its data sheet's. `utilisation` counts the operations of the model's products and
    attention, against a matrix product that was measured here.
    """
    if "error" in row:
        return row
    size = row["batch"] * row["length"]
    rate = row["adapters"] * size / row["step_seconds"]
    sheet, parameters = devices.device(), told.one.shape.model.parameters
    needed = flops(base.model, size, size // 2, row["length"]) / size * rate
    ratios = {
        f"ratio_to_{name}": rate / one["tokens_per_second"]
        for name, case in (("peft", "PEFT"), ("one", "K=1"))
        for one in before
        if one["case"] == case and "error" not in one
    }
    shares = {"share_of_peak": 4 * parameters * rate / sheet.flops, "utilisation": needed / product}
    rates = {"tokens_per_second": rate, "parameters": parameters, "product_flops": product, "peak_flops": sheet.flops}
    rates["peak_is"] = "of the data sheet" if sheet.gpu and devices._known(sheet.name) else "assumed"
    return row | rates | shares | ratios | _against(row, told.together)


def _against(row: Row, estimated: float) -> Row:
    return {"forecast_bytes": int(estimated), "forecast_over_measured": estimated / row["allocated_bytes"]}


def _walks(estimated: list[Forecast]) -> list[int | None]:
    """Walk one adapter of each kind of step: those of one training are alike."""
    kinds = {str(one.one.node.settings): one.one for one in estimated}
    found = dict(zip(kinds, walked(list(kinds.values()), installed("bitsandbytes")), strict=True))
    return [found[str(one.one.node.settings)] for one in estimated]


def _tell_forecasts(rows: list[Row], estimated: list[Forecast], walks: Future[list[int | None]], tell: Tell) -> None:
    """Tell the rows again, their forecasts corrected by the walks, as those of a plan are."""
    for row, told, walk in zip(rows, estimated, walks.result(), strict=True):
        more = _against(row, told.corrected(walk)) if "error" not in row else {}
        tell(row | more | {"forecast": "walked" if walk else "arithmetic"})


def generate(shape: Shape, cpu: bool, tell: Tell) -> None:
    """Answer the same prompts with the own decoder and with transformers' `generate`, each warm."""
    device = torch.device("cpu" if cpu else "cuda")
    count, new = (16, 8) if cpu else (PROMPTS, NEW_TOKENS)
    shape = tiny(shape) if cpu else shape
    base = made(shape, "bfloat16", device)
    model: Any = base.model.eval()
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=None)
    batch = _prompts(model.config.vocab_size, count, new, device)

    def own(limit: int) -> list[list[int]]:
        return decode(model, batch, Rules(limit, [], []))

    def theirs(limit: int) -> list[list[int]]:
        asked = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        found = model.generate(**asked, do_sample=False, max_new_tokens=limit, min_new_tokens=limit)
        return found[:, batch.input_ids.shape[1] :].tolist()

    answers: dict[str, list[list[int]]] = {}
    for name, way in (("own decoder", own), ("transformers", theirs)):
        way(4)
        reset_peak(device)
        seconds = []
        for _ in range(2):
            wait(device)
            began = time.perf_counter()
            answers[name] = way(new)
            wait(device)
            seconds.append(time.perf_counter() - began)
        rate = count * new / statistics.median(seconds)
        allocated, reserved = peak(device)
        sizes = {"prompts": count, "longest_prompt": batch.input_ids.shape[1], "new_tokens": new}
        memory = {"allocated_bytes": allocated, "reserved_bytes": reserved}
        tell({"case": name, "model": shape.name, **sizes, "runs_seconds": seconds, "tokens_per_second": rate, **memory})
    ours, others = answers.values()
    equal = [a == b for a, b in zip(ours, others, strict=True)]
    tell({"case": "agreement", "equal_answers": sum(equal), "answers": count, "all_equal": all(equal)})


def _prompts(words: int, count: int, longest: int, device: torch.device) -> Batch:
    """Return random prompts of a quarter to the whole of a length, padded on the left."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(longest // 4, longest + 1, (count, 1), generator=draw)
    mask = (torch.arange(longest) >= longest - lengths).long()
    ids = torch.randint(4, words, (count, longest), generator=draw) * mask
    return Batch([*range(count)], ids.to(device), mask.to(device), torch.zeros_like(mask, dtype=torch.bool).to(device))


def quickstart(cpu: bool, tell: Tell) -> None:
    """Apply three configurations of the quickstart, and check where they were computed."""
    with tempfile.TemporaryDirectory() as directory:
        spec = Path(directory) / "study.toml"
        shutil.copy(ROOT / "examples" / "quickstart" / "study.toml", spec)
        if cpu:
            text = spec.read_text(encoding="utf-8").replace("num_train_epochs = 6", "num_train_epochs = 1")
            spec.write_text(text.replace("seeds = [42, 1337, 2024]", "seeds = [42]"), encoding="utf-8")
        targets = [word for target in TARGETS for word in ("--target", target)]
        began = time.perf_counter()
        subprocess.run([*LORA, "apply", "study.toml", "--yes", "--quiet", *targets], cwd=directory, check=True)
        took = time.perf_counter() - began
        attempts = [every[-1] for every in State.read(Path(directory) / ".lora").latest().values()]
    wanted = device_class()
    devices = {str(one) for attempt in attempts for one in (attempt.device, attempt.environment["device"])}
    outcomes = {attempt.outcome for attempt in attempts}
    tell({"case": "apply", "seconds": took, "nodes": len(attempts), "outcomes": [*outcomes], "devices": [*devices]})
    for attempt in sorted(attempts, key=lambda one: one.address):
        if attempt.kind in ("train", "profile"):
            tell(_of_attempt(attempt))
    assert devices == {wanted}, f"computed on {', '.join(devices)}, and not on {wanted}"
    assert (wanted == "cpu") == cpu, f"the device is {wanted}"
    assert outcomes == {"done"}, f"ended as {', '.join(outcomes)}"


def _of_attempt(attempt: Attempt) -> Row:
    names = ("seconds", "steps", "tokens_per_second", "final_loss", "packed", "train_step_seconds", "train_step_joules")
    row = {"case": attempt.address, "outcome": attempt.outcome, "seconds": attempt.seconds}
    row |= {f"run_{name}": attempt.figures[name] for name in names if name in attempt.figures}
    estimated, measured = attempt.forecast.get("peak_memory_bytes"), peak_of(attempt)
    if estimated and measured:
        row |= {"allocated_bytes": measured} | _against({"allocated_bytes": measured}, estimated)
    return row


def tests(cpu: bool, tell: Tell) -> None:
    """Run the tests that are for a GPU; without one they are skipped, visibly."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "junit.xml"
        chosen = [str(ROOT / "tests" / name) for name in TESTS]
        # Without the options of pyproject.toml: they take plugins. A library's warning is no failure here.
        options = ["-o", "addopts=", "-o", "filterwarnings=default", "-p", "no:cacheprovider", "-q", "-rs"]
        ended = _ended([sys.executable, "-P", "-m", "pytest", *options, f"--junitxml={file}", *chosen], TESTS_SECONDS)
        if not file.is_file():
            raise RuntimeError(f"pytest ended with {ended} and wrote no result")
        cases = [*ElementTree.parse(file).getroot().iter("testcase")]
    found: dict[str, list[str]] = {"passed": [], "failure": [], "error": [], "skipped": []}
    for case in cases:
        kind = next((child.tag for child in case if child.tag in found), "passed")
        found[kind].append(f"{case.get('classname')}::{case.get('name')}")
    failed = found["failure"] + found["error"]
    counts = {"passed": len(found["passed"]), "failed": len(failed), "skipped": len(found["skipped"])}
    tell({"case": "pytest", **counts, "names_failed": failed, "names_skipped": found["skipped"], "ended": ended})
    if ended not in (0, 5) or failed:  # 5: all were skipped
        raise RuntimeError(f"{len(failed)} tests failed; pytest ended with {ended}")
    if not cpu and any("packing_cuda" in name for name in found["skipped"]):
        raise RuntimeError("the tests for a GPU were skipped")


def _ended(command: list[str], seconds: float) -> int:
    """Run a command in the checkout; after some seconds it is interrupted, as by Ctrl-C. Return its exit code."""
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            return process.wait()


def _llama(name: str, dtype: str, *ways: Way, batch: int = 4, length: int = 256) -> Callable[[bool, Tell], None]:
    shape = replace(LLAMA_3[name], batch=batch, length=length)
    return functools.partial(train, shape, dtype, ways)


PARTS: dict[str, Callable[[bool, Tell], None]] = {
    "tests": tests,
    "train 1B": _llama("1B", "bfloat16", PEFT, Way(), Way(4), Way(8), Way(16)),
    "train 8B": _llama(
        "8B", "bfloat16", replace(PEFT, steps=5), Way(steps=5), Way(4, 3, checkpointing=True), batch=2, length=4096
    ),
    "train 8B nf4": _llama("8B", "nf4", PEFT, Way(), Way(8, 6)),
    "train 3B": _llama("3B", "bfloat16", PEFT, Way(), Way(8, 6)),
    "generate 1B": functools.partial(generate, LLAMA_3["1B"]),
    "quickstart": quickstart,
    "trainers 1B nf4": functools.partial(compare, LLAMA_3["1B"]),
}


def main() -> None:
    """Do one part, and write a line of JSON for each row."""
    name, file, *options = sys.argv[1:]
    quiet_libraries()

    def tell(row: Row) -> None:
        with Path(file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    PARTS[name]("--cpu" in options, tell)


if __name__ == "__main__":
    main()
