"""Made-up studies of many configurations, and states in which all of them are finished: no model is loaded.

`python benchmarks/finished.py SPEC STATE [whole|judged]` finishes a study; a number instead of a spec makes one of so
many configurations next to the state. With `whole` files are as large as the quickstart's; with `judged` a made study
has three seeds and a margin, and the rows of its files can be read, as a report does. It prints the spec and how many
nodes it has.
"""

import gzip
import hashlib
import json
import random
import sys
from collections.abc import Iterable
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest import mock

from lorafile.apply.work_groups import read_digests
from lorafile.environment import device_class, environment
from lorafile.graph.graph import GraphNode
from lorafile.lock.lockfile import lock_file
from lorafile.state import Attempt, Node, Objects, State
from lorafile.study.study import Study

# What a node leaves behind, and the figures of one real run: each made-up one has them a little changed.
FILES = {
    "prepare": ("digests.bin", "examples.jsonl.gz", "tokens.safetensors"),
    "train": ("adapter_config.json", "adapter_model.safetensors", "curve.jsonl.gz"),
    "predict": ("predictions.jsonl.gz",),
    "score": ("outcomes.jsonl.gz",),
}
BYTES = {
    "adapter_model.safetensors": 361_207,
    "curve.jsonl.gz": 2_700,
    "outcomes.jsonl.gz": 2_219,
    "predictions.jsonl.gz": 2_184,
}
_TRAINED = {"final_loss": 2.545575261116028, "seconds": 1.4178284800000256, "steps": 15, "adapter_bytes": 156536}
_TRAINED |= {"supervised_tokens": 960, "tokens": 7189, "tokens_per_second": 5070.42, "trainable_parameters": 37376}
_PHASES = ("load", "train", "evaluate", "generate", "merged_generate")
_TIMES = {"train_step_seconds": 0.0404, "first_token_seconds": 0.0906, "token_seconds": 0.0307, "load_seconds": 0.076}
FIGURES: dict[str, dict[str, Any]] = {
    "prepare": {"examples": 480, "longest": 17, "median_tokens": 15.0, "supervised_fraction": 0.1335, "tokens": 7189},
    "train": _TRAINED,
    "predict": {"examples": 160},
    "score": {"examples": 160, "log_loss": 2.149789903947733},
    "profile": {f"{phase}_{kind}_bytes": 457359360 for phase in _PHASES for kind in ("allocated", "reserved")} | _TIMES,
}
_FORECAST: dict[str, Any] = {"seconds": 1.4, "analytic_seconds": 1.9, "source": "calibrated on 3 runs", "arithmetic": 3}
_PEAK = {"peak_memory_bytes": 49149952, "analytic_bytes": 51149952.0, "memory_source": "calibrated on 3 runs"}
_STEPS = [(step, step / 15, 2.5, 3e-3, 1.0) for step in range(1, 16)]
_SPEC = """
[study]
name = "{count} configurations"
seeds = {seeds}
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
max_length = 32
[evaluate]
metrics = ["log_loss"]
{verdict}
[[sweep]]
name = "grid"
lora.r = {ranks}
lora.lora_dropout = {dropouts}
lora.target_modules = {targets}
"""
_TARGETS = '[["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj"], "attention", "mlp", "all-linear"]'
# configurations -> ranks and dropouts, of five places
SIZES = {100: (5, 4), 250: (10, 5), 500: (10, 10), 1_000: (20, 10), 10_000: (50, 40)}


def grid(count: int, directory: Path, judged: bool = False) -> Path:
    """Write the spec of so many configurations, of which no two cost the same; return its file.

    Each has six nodes of its own: it is trained, predicts and is scored on validation and test, and is profiled.

    :param judged: each has three seeds, and verdicts have a margin
    """
    ranks, dropouts = SIZES[count]
    values: dict[str, Any] = {"ranks": list(range(1, ranks + 1)), "seeds": [42], "verdict": ""}
    values["dropouts"] = [number / 100 for number in range(dropouts)]
    if judged:
        values |= {"seeds": [42, 1337, 2024], "verdict": '[verdict]\nmargin = "1%"'}
    file = directory / f"{count}.toml"
    file.write_text(_SPEC.format(count=count, targets=_TARGETS, **values), encoding="utf-8")
    return file


def finish(spec: Path, state: Path, whole: bool = False, judged: bool = False) -> int:
    """Make a state in which every node of a study is done, through the store itself; return how many nodes it has.

    :param whole: files are as large as real ones
    :param judged: files of rows hold some, and an example's outcomes make up the figures
    """
    study = Study.load(spec, state)
    if not lock_file(study.spec).exists():
        study.lock()
    graph = study.plan().graph
    results: dict[str, Attempt] = {}
    today, chance = environment(), random.Random(0)
    rows: dict[str, bytes] = {}
    put = partialmethod(_put, BYTES if whole else {}, rows)
    made_up = mock.patch.object(Objects, "put", put), mock.patch("lorafile.state.store.curve_steps", lambda _: _STEPS)
    with State.write(state) as store, made_up[0], made_up[1], store.db.atomic():
        for node in graph.nodes.values():
            figures = {name: _near(value, chance) for name, value in FIGURES[node.kind].items()}
            if judged:
                rows.clear()
                rows |= _rows(node, figures, chance)
            attempt = Attempt(
                *(node.key, node.kind, "done", "", "2026-01-01T00:00:00+00:00", 2 * chance.random(), device_class()),
                *(today, figures, read_digests(node, results), graph.spec.name, node.address),
                forecast=_FORECAST | _PEAK | {"group": f"{node.kind}/lora/6b4e56bb40cd/plain"},
            )
            files = {name: Path(node.key) / name for name in FILES.get(node.kind, ())}
            results[node.key] = store.record(_stored(node), attempt, files)
        store.declare(graph.spec.name, {node.address: (node.key, node.kind) for node in graph.nodes.values()})
    return len(graph.nodes)


def _stored(node: GraphNode) -> Node:
    return Node(node.key, node.kind, node.version, node.settings, node.inputs)


def _near(value: Any, chance: random.Random) -> Any:
    return value if isinstance(value, int) else value * (0.9 + 0.2 * chance.random())


def _rows(node: GraphNode, figures: dict[str, Any], chance: random.Random) -> dict[str, bytes]:
    """Return file name -> its rows; a score's figure becomes its configuration's own, and a little of its seed's."""
    if node.kind == "prepare":
        return {"examples.jsonl.gz": _packed({"prompt": f"question {row}", "reference": "yes"} for row in range(160))}
    if node.kind == "predict":
        return {"predictions.jsonl.gz": _packed({"log_likelihood": -4.3, "tokens": 2} for _ in range(160))}
    if node.kind == "train":
        names = ("step", "epoch", "loss", "learning_rate", "grad_norm")
        return {"curve.jsonl.gz": _packed(dict(zip(names, step, strict=True)) for step in _STEPS)}
    if node.kind != "score":
        return {}
    usual = random.Random(node.configuration).uniform(2.0, 2.3) + chance.gauss(0, 0.01)
    losses = [usual + (row - 79.5) / 100 + chance.gauss(0, 0.1) for row in range(160)]
    figures["log_loss"] = sum(losses) / len(losses)
    return {"outcomes.jsonl.gz": _packed({"log_loss": loss, "tokens": 2} for loss in losses)}


def _packed(rows: Iterable[dict[str, Any]]) -> bytes:
    lines = [json.dumps({"row": number, **row}) for number, row in enumerate(rows)]
    return gzip.compress("\n".join(lines).encode(), compresslevel=1, mtime=0)


def _put(objects: Objects, sizes: dict[str, int], rows: dict[str, bytes], file: Path) -> tuple[str, int]:
    """Store the file's rows, or its name up to its size; nothing is flushed, since it need not survive a crash."""
    name = str(file).encode()
    content = (name * (sizes.get(file.name, 0) // len(name) + 1))[: max(sizes.get(file.name, 0), len(name))]
    content = rows.get(file.name, content)
    digest = hashlib.sha256(content).hexdigest()
    target = objects.path(digest)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return digest, len(content)


if __name__ == "__main__":
    of, state = sys.argv[1], Path(sys.argv[2])
    whole, judged = (how in sys.argv[3:] for how in ("whole", "judged"))
    spec = grid(int(of), state.parent, judged) if of.isdigit() else Path(of)
    print(spec, finish(spec, state, whole, judged))
