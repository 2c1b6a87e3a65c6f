"""How long does a study of eight adapters take, against the same study as it is trained today, with TRL and PEFT?

Run `python benchmarks/study.py`; it prints a table for each setting and writes `benchmarks/results/DATE-study.json`.
Peers and tool take turns. The peer is peer_trl.py, a process for each configuration and all eight in one; it needs
`pip install "lorafile[bench]"` here, or `--peer-python` with another installation. study_inputs.py makes the inputs,
study_losses.py shows that both sides do the same training.
"""

import argparse
import contextlib
import ctypes
import gzip
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from study_inputs import CONFIGURATIONS, SETTINGS, make  # noqa: E402

LORA = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()"]
WAYS = ("trl, a process each", "trl, one process", "lora apply")
PARTS = ("startup", "load", "prepare", "train", "evaluate", "save", "exit", "idle")
_SUBREAPER = 36  # prctl: what a child leaves behind becomes ours, so that its processor time is counted
_EVALUATED_AT_ONCE = 16  # as peer_trl.py does, whose Trainer averages over batches


def surroundings(cache: Path) -> dict[str, str]:
    """Return the environment of every child: libraries choose their threads, and nothing is cached from before."""
    kept = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**kept, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def timed(command: list[str], cache: Path) -> tuple[float, float, float]:
    """Run a command; return when it began and ended, and the processor's seconds, of whatever it started as well.

    :raises SystemExit: with the end of what it printed, when it fails
    """
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings(cache))
    ended = time.time()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:] or done.stdout[-2000:]}")
    with contextlib.suppress(ChildProcessError):
        while True:  # a fork server outlives its command by a moment
            os.wait()
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return began, ended, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def peer(python: str, task: Path, out: Path, together: bool) -> dict[str, Any]:
    """Train the study with TRL; return its makespan, its parts in seconds, and each configuration's loss."""
    out.mkdir()
    total, processor, parts, losses = 0.0, 0.0, dict.fromkeys(PARTS, 0.0), {}
    names = list(CONFIGURATIONS)
    for some in [names] if together else [[name] for name in names]:
        command = [python, str(HERE / "peer_trl.py"), str(task), str(out), *some]
        began, ended, used = timed(command, out / "cache")
        total, processor = total + ended - began, processor + used
        found = {name: json.loads((out / f"{name}.json").read_text(encoding="utf-8")) for name in some}
        for name, one in found.items():
            losses[name] = one["eval_loss"]
            for part, share in one["seconds"].items():
                parts[part] += share
        parts["exit"] += ended - found[some[-1]]["ended"]
    parts["startup"] += total - sum(parts.values())  # Python itself, before its first line
    return {"seconds": total, "processor": processor, "parts": parts, "losses": losses}


def tool(task: Path, out: Path) -> dict[str, Any]:
    """Train the study with `lora apply` in an empty state; return its makespan, parts and losses."""
    from lorafile.state import State
    from lorafile.study.study import Study

    out.mkdir()
    spec, state = out / "study.toml", out / "state"
    shutil.copy(task.parent / "study.toml", spec)
    began, ended, processor = timed([*LORA, "apply", str(spec), "--state", str(state), "--yes", "--quiet"], out)
    plan = Study.load(spec, state).plan()
    stored = State.read(state)
    done = {node.address: plan.results[key] for key, node in plan.graph.nodes.items()}
    written = [file.stat().st_mtime for file in (state / "objects").rglob("*") if file.is_file()]
    parts = dict.fromkeys(PARTS, 0.0)
    for attempt in done.values():
        inner = attempt.figures.get("seconds", 0.0)
        parts[{"predict": "evaluate", "score": "evaluate"}.get(attempt.kind, attempt.kind)] += inner or attempt.seconds
        parts["save"] += attempt.seconds - inner if inner else 0.0
    first = next(one for one in done.values() if one.kind == "prepare")
    begun = min(stored.objects.path(digest).stat().st_mtime for digest in first.outputs.values()) - first.seconds
    parts |= {"startup": begun - began, "exit": ended - max(written)}
    parts["idle"] = plan.workers * (max(written) - begun) - sum(parts[part] for part in PARTS[1:6])
    losses = {}
    for address, attempt in done.items():
        if attempt.kind == "predict":
            file = stored.objects.path(attempt.outputs["predictions.jsonl.gz"])
            losses[address.split("/")[1]] = _trainers_mean(gzip.decompress(file.read_bytes()).decode())
    seconds = {"seconds": ended - began, "processor": processor}
    return {**seconds, "parts": parts, "losses": losses, "workers": plan.workers}


def _trainers_mean(predictions: str) -> float:
    """Return the loss as transformers' Trainer averages it: of batches in the data's order, by their rows."""
    rows = sorted((json.loads(line) for line in predictions.splitlines()), key=lambda row: row["row"])
    batches = [rows[at : at + _EVALUATED_AT_ONCE] for at in range(0, len(rows), _EVALUATED_AT_ONCE)]
    total = sum(-sum(r["log_likelihood"] for r in b) / sum(r["tokens"] for r in b) * len(b) for b in batches)
    return float(total / len(rows))


def agreement(python: str, task: Path) -> dict[str, Any]:
    """Return the losses of both sides from one start over the same batches, and how far they lie apart."""
    found = {}
    for side, interpreter in (("ours", sys.executable), ("peer", python)):
        timed([interpreter, str(HERE / "study_losses.py"), side, str(task.parent)], task.parent / "cache")
        found[side] = json.loads((task.parent / f"losses-{side}.json").read_text(encoding="utf-8"))
    pairs = zip(found["ours"]["steps"], found["peer"]["steps"], strict=True)
    apart = max(abs(a - b) / abs(b) for a, b in [*pairs, (found["ours"]["untuned"], found["peer"]["untuned"])])
    return {**found, "largest_relative_difference": apart}


def measure(name: str, shared: Path, python: str, turns: int, ways: list[str]) -> dict[str, Any]:
    """Return everything of one setting: each way in turns, and what of their losses was compared."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="lorafile-study-") as directory:
        task = make(SETTINGS[name], shared, Path(directory) / "inputs")
        same = agreement(python, task) if any(way.startswith("trl") for way in ways) else None
        for turn in range(turns):
            for way in ways:
                out = Path(directory) / f"{turn}-{WAYS.index(way)}"
                one = tool(task, out) if way == WAYS[2] else peer(python, task, out, way == WAYS[1])
                print(f"{name}, turn {turn + 1}: {way} {one['seconds']:.1f} s", file=sys.stderr, flush=True)
                found[way].append(one)
                shutil.rmtree(out)
    return {"agreement": same, "turns": found}


def show(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print the table of one setting; return medians and ratios."""
    print(f"\n{name}: {SETTINGS[name]}")
    head = f"{'':20} {'makespan':>9} {'times ours':>10} {'processor':>10}  "
    print(head + " ".join(f"{part:>8}" for part in PARTS))
    ours = [one["seconds"] for one in found["turns"].get(WAYS[2], [])]
    rows = {}
    for way, turns in found["turns"].items():
        wall = statistics.median(one["seconds"] for one in turns)
        ratio = statistics.median(one["seconds"] / own for one, own in zip(turns, ours, strict=True)) if ours else None
        parts = {part: statistics.median(one["parts"][part] for one in turns) for part in PARTS}
        used = statistics.median(one["processor"] for one in turns)
        rows[way] = {"seconds": wall, "times_ours": ratio, "processor": used, "parts": parts}
        rows[way]["losses"] = turns[0]["losses"]
        shown = " ".join(f"{seconds:7.1f}s" for seconds in parts.values())
        print(f"{way:20} {wall:8.1f}s {ratio or 0:9.2f}x {used:9.1f}s  {shown}")
    print(
        "Parts of `lora apply` from prepare to idle are seconds of its workers, added up; `processor` is what all cores"
    )
    print("together spent, which a crowded machine changes least.")
    if found["agreement"]:
        apart = found["agreement"]["largest_relative_difference"]
        print(f"From one start over the same batches, losses differ by {apart:.1e} at most (untuned, and ten steps).")
    print("final loss:     " + " ".join(f"{configuration:>10}" for configuration in CONFIGURATIONS))
    for way, row in rows.items():
        print(f"{way:20}" + " ".join(f"{row['losses'][configuration]:10.4f}" for configuration in CONFIGURATIONS))
    return rows


def about(python: str, settings: list[str], turns: int) -> dict[str, Any]:
    """Return where and with what this was measured."""
    from lorafile.environment import environment

    names = ["torch", "transformers", "peft", "trl", "datasets"]
    ask = f"from importlib.metadata import version; print(*(version(name) for name in {names}))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True)
    if answer.returncode:
        raise SystemExit(f'{python} has no trl: pip install "lorafile[bench]", or name another with --peer-python.')
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python benchmarks/study.py", *settings, f"--turns {turns}"]),  # no paths of this machine
        "lorafile": version("lorafile"),
        "python": platform.python_version(),
        "environment": environment(),
        "peer": dict(zip(names, answer.stdout.split(), strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="*", help="small, large-vocabulary, gpu [default: what fits this machine]")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with trl")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=WAYS, action="append", help="one way alone, to look at it")
    parser.add_argument("--shared", type=Path, default=HERE.parents[1] / "shared", help="folder of models/ and data/")
    options = parser.parse_args()
    if not (options.shared / "models").is_dir():
        raise SystemExit(f"{options.shared} has no models/ and data/; name the folder that has them with --shared.")
    import torch

    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    chosen = options.settings or (list(SETTINGS) if torch.cuda.is_available() else ["small", "large-vocabulary"])
    found: dict[str, Any] = about(options.peer_python, options.settings, options.turns)
    for name in chosen:
        every = measure(name, options.shared.resolve(), options.peer_python, options.turns, options.only or list(WAYS))
        found[name] = {"summary": show(name, every), **every}
    file = HERE / "results" / f"{found['date']}-study.json"
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
