"""Does a study hold more than its largest single run? Peak resident size of its worker processes, one run at a time.

Run `python benchmarks/memory.py` on Linux; it prints a table and writes `benchmarks/results/DATE-memory.json`. The
study is eight adapters on a random 15 M Llama with a vocabulary of 32,000, one at a time (`--pack off`); the largest
are first run alone, each in a state of its own.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
TARGETS = {"qv": ["q_proj", "v_proj"], "qkv": ["q_proj", "k_proj", "v_proj"], "qkvo": "attention"}
SWEEP = [*((f"r{rank}", rank, "qkvo") for rank in (4, 8, 16, 32, 64)), *((name, 16, name) for name in TARGETS)]
ALONE = ("r32", "r64", "qkvo")  # the largest of them
LIMIT = 1.3
SPEC = """
[study]
name = "memory"
seeds = [1]
[model]
path = "model"
[data]
path = "rows.jsonl"
max_length = 256
split = {{ train = 16, validation = 2, test = 8 }}
[train]
num_train_epochs = 1
per_device_train_batch_size = 4
[evaluate]
metrics = ["log_loss"]
[profile]
enabled = false
[[sweep]]
name = "made"
configurations = [{configurations}]
"""


def prepare(directory: Path) -> None:
    """Write the model and its rows."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lorafile.engine.data.sources import find_model

    tokenizer = AutoTokenizer.from_pretrained(find_model("builtin:facts-llama", None, Path()))
    torch.manual_seed(0)
    shape = {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6}
    config = LlamaConfig(vocab_size=32_000, tie_word_embeddings=True, **shape)
    LlamaForCausalLM(config).save_pretrained(directory / "model")
    tokenizer.save_pretrained(directory / "model")
    rows = [{"prompt": "where does anna live ? " * 30 + str(n), "completion": " paris" * 64} for n in range(26)]
    (directory / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def spec(directory: Path, chosen: list[tuple[str, int, str]]) -> Path:
    """Write a study of some of the adapters."""
    points = [
        f'{{ name = "{name}", lora.r = {rank}, lora.target_modules = {json.dumps(TARGETS[targets])} }}'
        for name, rank, targets in chosen
    ]
    file = directory / "study.toml"
    file.write_text(SPEC.format(configurations=", ".join(points)), encoding="utf-8")
    return file


def children(process: int) -> list[int]:
    """Return the processes that one has started."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:  # it has ended
        return []


def high_water(process: int) -> int:
    """Return the most bytes that a process has had resident."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0


def applied(file: Path, state: Path, workers: int) -> dict[int, int]:
    """Apply a study; return the peak resident bytes of each worker: a child of the fork server, which is ours."""
    options = ["--yes", "--quiet", "--pack", "off", "--workers", str(workers)]
    command = [*LORA, "apply", str(file), "--state", str(state), *options]
    found: dict[int, int] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for worker in (worker for server in children(process.pid) for worker in children(server)):
                found[worker] = max(found.get(worker, 0), high_water(worker))
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"lora apply ended with {process.returncode}")
    return {worker: peak for worker, peak in found.items() if peak}


def measure(directory: Path) -> dict[str, Any]:
    """Return the peaks of each single run, of the study by one worker, and of the study by two."""
    prepare(directory)
    alone = {}
    for name, rank, targets in SWEEP:
        if name not in ALONE:
            continue
        peaks = applied(spec(directory, [(name, rank, targets)]), directory / f"state-{name}", 1)
        alone[name] = max(peaks.values())
        print(f"{name:16} alone {alone[name] / 2**20:8.1f} MiB", flush=True)
    largest = max(alone.values())
    found: dict[str, Any] = {"alone_bytes": alone, "largest_bytes": largest}
    for workers in (1, 2):
        peaks = applied(spec(directory, SWEEP), directory / f"state-{workers}", workers)
        ratio = max(peaks.values()) / largest
        found[f"workers_{workers}"] = {"bytes": list(peaks.values()), "ratio": ratio}
        each = ", ".join(f"{peak / 2**20:.1f}" for peak in peaks.values())
        print(f"{len(SWEEP)} by {workers} worker(s) {each} MiB, {ratio:.2f} times the largest single run")
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory))
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {"cores": os.cpu_count(), "python": platform.python_version()}
    about |= {name: version(name) for name in ("lorafile", "torch", "transformers", "peft")}
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    (out / f"{about['date']}-memory.json").write_text(
        json.dumps({**about, "limit": LIMIT, **found}, indent=1) + "\n", encoding="utf-8"
    )
    over = [workers for workers in (1, 2) if found[f"workers_{workers}"]["ratio"] > LIMIT]
    if over:
        raise SystemExit(f"A study holds more than {LIMIT} times its largest single run.")


if __name__ == "__main__":
    main()
