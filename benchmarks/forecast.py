"""How far is a forecast off after one calibrating run? Estimated against measured time and peak memory.

Run `python benchmarks/forecast.py` on a free machine; it prints a table and writes a dated JSON into
`benchmarks/results`. The studies are the quickstart, two on a real pretrained Llama and real texts (`--shared`: a
folder of models/ and data/), and one on a chat model of 135 million parameters (`--models`: a folder of
SmolLM2-135M-Instruct/). Of each, one configuration is applied into an empty state, then the rest of the study; the
errors are those of what the plan estimated for the rest.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorafile.plan.forecast.calibration import errors
from lorafile.state import Attempt, State

HERE = Path(__file__).resolve().parent
LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
LIMITS = {"time": 0.2, "memory": 0.1}
FIRST = {
    "quickstart": "rank/r=8",
    "instructions": "rank/r=8",
    "chat": "rank/r=8",
    "questions": "modules/target_modules=all-linear",
}
SPECS = {
    "instructions": """
[study]
name = "instructions"
seeds = [42, 1337, 2024]
[model]
path = "{shared}/models/stories260K-hf"
[data]
path = "{shared}/data/instruct/self_instruct.jsonl"
format = "alpaca"
split = {{ train = 160, validation = 32, test = 32 }}
max_length = 256
too_long = "drop"
[train]
num_train_epochs = 2
[evaluate]
metrics = ["log_loss"]
[[sweep]]
name = "rank"
lora.r = [2, 8, 32]
[[sweep]]
name = "modules"
lora.target_modules = [["q_proj", "v_proj"], "mlp", "all-linear"]
""",
    "questions": """
[study]
name = "questions"
seeds = [42, 1337, 2024]
[model]
path = "{shared}/models/stories260K-hf"
[data]
path = "{shared}/data/gsm8k"
split = {{ train = 160, validation = 32, test = 32 }}
max_length = 384
too_long = "drop"
[train]
num_train_epochs = 1
per_device_train_batch_size = 4
[evaluate]
metrics = ["log_loss", "exact_match"]
max_new_tokens = 16
[[sweep]]
name = "modules"
lora.target_modules = ["attention", "mlp", "all-linear"]
[[sweep]]
name = "layers"
lora.layers_to_transform = ["first-third", "last-third"]
[[sweep]]
name = "methods"
method = ["none", "full"]
""",
    "chat": """
[study]
name = "chat"
seeds = [42, 1337]
[model]
path = "{models}/SmolLM2-135M-Instruct"
dtype = "float32"
[data]
path = "{shared}/data/instruct/self_instruct.jsonl"
format = "alpaca"
split = {{ train = 32, validation = 8, test = 16 }}
max_length = 192
too_long = "drop"
[train]
num_train_epochs = 1
per_device_train_batch_size = 4
[evaluate]
metrics = ["log_loss", "rougeL"]
max_new_tokens = 48
[[sweep]]
name = "rank"
lora.r = [2, 8, 64]
[[sweep]]
name = "modules"
lora.target_modules = [["q_proj", "v_proj"]]
[[sweep]]
name = "methods"
method = ["none"]
""",
}


def applied(directory: Path, *options: str) -> None:
    """Apply the study of a directory, or a part of it."""
    command = [*LORA, "apply", "study.toml", "--yes", "--quiet", *options]
    done = subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"lora apply ended with {done.returncode}")


def attempts(directory: Path) -> dict[str, Attempt]:
    """Return key -> the last attempt at it."""
    return {key: known[-1] for key, known in State.read(directory / ".lora").latest().items()}


def measure(name: str, shared: Path, models: Path | None, directory: Path) -> dict[str, Any]:
    """Return how far the forecasts of a study were off, as shares of what was measured; signed, in order of size."""
    directory.mkdir()
    if name == "quickstart":
        shutil.copy(HERE.parent / "examples" / "quickstart" / "study.toml", directory)
    else:
        (directory / "study.toml").write_text(SPECS[name].format(shared=shared, models=models), encoding="utf-8")
    applied(directory, "--target", FIRST[name])
    first = attempts(directory)
    applied(directory)
    rest = [attempt for key, attempt in attempts(directory).items() if key not in first]
    found: dict[str, Any] = {"calibrated_on": FIRST[name]}
    for what, off in errors(rest).items():
        middle = statistics.median(map(abs, off))
        found[what] = {"median": middle, "errors": sorted(round(one, 4) for one in off)}
        print(f"{name:14} {what:8} {len(off):4} forecasts, median error {middle:6.1%}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=HERE.parents[1] / "shared", help="folder of models/ and data/")
    parser.add_argument("--models", type=Path, help="folder of SmolLM2-135M-Instruct/; without it, chat is left out")
    parser.add_argument("--only", action="append", choices=list(FIRST), help="one of the studies; repeatable")
    options = parser.parse_args()
    models = options.models.resolve() if options.models else None
    chosen = options.only or [name for name in FIRST if models or name != "chat"]
    with tempfile.TemporaryDirectory() as directory:
        found = {name: measure(name, options.shared.resolve(), models, Path(directory) / name) for name in chosen}
    over = []
    for what, limit in LIMITS.items():
        every = [abs(one) for study in found.values() for one in study[what]["errors"]]
        middle = statistics.median(every)
        print(f"{'all':14} {what:8} {len(every):4} forecasts, median error {middle:6.1%}, wanted {limit:.0%}")
        over += [what] if middle > limit else []
    about = {"date": datetime.now(UTC).date().isoformat(), "machine": platform.processor() or platform.machine()}
    about |= {"cores": os.cpu_count(), "python": platform.python_version()}
    about |= {name: version(name) for name in ("lorafile", "torch", "transformers", "peft")}
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    text = json.dumps({**about, "limits": LIMITS, "studies": found}) + "\n"
    (out / f"{about['date']}-forecast.json").write_text(text, encoding="utf-8")
    if over:
        raise SystemExit(f"Further off than wanted: {', '.join(over)}.")


if __name__ == "__main__":
    main()
