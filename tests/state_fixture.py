"""A state in which a whole study is finished, without training: real keys, small files."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lorafile import specs
from lorafile.engine.environment import device_class, environment
from lorafile.engine.lines import write_lines
from lorafile.graph import Graph, GraphNode
from lorafile.lockfile import read_lock, resolve
from lorafile.nodes import build
from lorafile.state import Attempt, Node, State

STUDY = """
[study]
name = "small"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
split = { train = 16, validation = 6, test = 6 }
[profile]
enabled = false
[evaluate]
metrics = ["log_loss", "exact_match"]
[[sweep]]
name = "rank"
lora.r = [4, 8]
[[sweep]]
name = "baselines"
method = ["none"]
"""


def write_study(directory: Path, text: str = STUDY) -> Path:
    """Write a spec and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "study.toml").write_text(text, encoding="utf-8")
    return directory / "study.toml"


def graph_of(spec_file: Path) -> Graph:
    spec = specs.load(spec_file)
    return build(spec, resolve(spec, read_lock(spec))[0])


def finish(spec_file: Path, kinds: Iterable[str] = ("prepare", "train", "predict", "score")) -> Path:
    """Record every node of a study as done, each reading what its inputs left; return the state."""
    directory = spec_file.parent / ".lora"
    graph, done, today = graph_of(spec_file), dict[str, dict[str, str]](), environment()
    with State.write(directory) as state:
        state.declare(graph.spec.name, {node.address: (node.key, node.kind) for node in graph.nodes.values()})
        for node in graph.nodes.values():
            if node.kind in kinds:
                files = files_of(node, spec_file.parent / "made")
                attempt = Attempt(
                    *(node.key, node.kind, "done"),
                    started="2026-11-01T10:00:00+00:00",
                    seconds=2.0,
                    device=device_class(),
                    environment=today,
                    figures=_figures(node),
                    reads={role: done[key] for role, key in node.inputs.items()},
                    study=graph.spec.name,
                    address=node.address,
                )
                stored = Node(node.key, node.kind, node.version, node.settings, node.inputs)
                done[node.key] = state.record(stored, attempt, files).outputs
    return directory


def files_of(node: GraphNode, made: Path) -> dict[str, Path]:
    directory = made / node.key
    directory.mkdir(parents=True, exist_ok=True)
    names = {"train": ["adapter_model.safetensors"], "score": ["outcomes.jsonl.gz"]}.get(node.kind, ["rows.jsonl.gz"])
    for name in names:
        (directory / name).write_bytes(hashlib.sha512(f"{node.key} {name}".encode()).digest() * 50)
    if node.kind == "train":
        rows = [{"step": n, "epoch": n / 2, "loss": 3 / n, "learning_rate": 0.1, "grad_norm": 1.0} for n in (1, 2)]
        write_lines(directory / "curve.jsonl.gz", rows)
        names = [*names, "curve.jsonl.gz"]
    return {name: directory / name for name in names}


def _figures(node: GraphNode) -> dict[str, float]:
    if node.kind == "score":
        rank = 8 if "r=8" in node.address else 4 if "r=4" in node.address else 1
        return {"examples": 6, "log_loss": 2.0 - rank / 10, "exact_match": rank / 10}
    return {"steps": 2, "final_loss": 1.5} if node.kind == "train" else {}
