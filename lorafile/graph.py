"""Study and lock to nodes: every unit of work that a study declares, each under its key."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from lorafile.engine.templates import check_columns
from lorafile.errors import NodeError
from lorafile.lockfile import Lock, identity
from lorafile.metrics import METRICS
from lorafile.sections import data_format, data_section, resolved_sections, section_digest
from lorafile.specs import Configuration, Spec
from lorafile.splits import draw

# Raised when a change in the code of a kind can change its result: a new key, and a reason in the plan.
VERSIONS = {"prepare": 1, "train": 1, "predict": 1, "score": 1, "profile": 1}
# What a profile measures does not depend on these: they stay out of its key.
_NO_COST_OF_ADAPTER = ("lora_alpha", "use_rslora", "init_lora_weights", "alpha_pattern")
_COST_OF_TRAINING = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "bf16",
    "fp16",
    "gradient_checkpointing",
)


@dataclass(frozen=True)
class GraphNode:
    """One unit of work of a study.

    :ivar settings: section -> settings, as they are hashed; `inputs`: role -> key of the node that is read
    :ivar configuration: the name of the first configuration that needs it (empty for `prepare`)
    """

    key: str
    kind: str
    address: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    configuration: str = ""
    seed: int | None = None
    split: str = ""

    @property
    def version(self) -> int:
        """The protocol version of its kind."""
        return VERSIONS[self.kind]


@dataclass
class Graph:
    """The nodes of a study by key; each stands after what it reads."""

    spec: Spec
    lock: Lock
    nodes: dict[str, GraphNode] = field(default_factory=dict)
    replicates: dict[str, list["Replicate"]] = field(default_factory=dict)  # by configuration
    profiles: dict[str, str] = field(default_factory=dict)  # configuration -> key
    splits: dict[str, dict[str, str]] = field(default_factory=dict)  # configuration -> split -> key of its prepare node
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)  # configuration -> its resolved sections

    def add(self, kind: str, address: str, sections: dict[str, Any], inputs: dict[str, str], **about: Any) -> str:
        """Add a node, unless one of the same key is there already; return its key."""
        digests = {name: section_digest(value) for name, value in sections.items()}
        content: dict[str, Any] = {"kind": kind, "version": VERSIONS[kind], "sections": digests, "inputs": inputs}
        key = hashlib.sha256(rfc8785.dumps(content)).hexdigest()
        self.nodes.setdefault(key, GraphNode(key, kind, address, sections, inputs, **about))
        return key


@dataclass(frozen=True)
class Replicate:
    """A configuration under one seed: the keys of its nodes."""

    seed: int | None
    train: str | None
    predict: dict[tuple[str, str], str]  # (split, output) -> key
    score: dict[str, str]  # split -> key


def build(spec: Spec, lock: Lock) -> Graph:
    """Return every node of a study: examples first, then one whole seed after another, then what is measured alone."""
    graph = Graph(spec, lock)
    for configuration in spec.configurations:
        graph.sections[configuration.name] = resolved_sections(configuration, lock)
        graph.splits[configuration.name] = _add_splits(graph, configuration)
    for configuration, seed in _replicates(spec):
        replicate = _add_replicate(graph, configuration, seed)
        graph.replicates.setdefault(configuration.name, []).append(replicate)
    if spec.tables.profile.enabled:
        for configuration in spec.configurations:
            graph.profiles[configuration.name] = _add_profile(graph, configuration)
    return graph


def _replicates(spec: Spec) -> Iterator[tuple[Configuration, int | None]]:
    """Yield whole seeds, so that a study that is cut short still compares; the untuned row, being exact, comes once."""
    for configuration in spec.configurations:
        if configuration.method == "none":
            yield configuration, None
    for seed in spec.tables.study.seeds:
        for configuration in spec.configurations:
            if configuration.method != "none":
                yield configuration, seed


def _add_splits(graph: Graph, configuration: Configuration) -> dict[str, str]:
    table = configuration.data
    lock = graph.lock.data[identity(table)]
    try:
        drawn = draw(table.split, table.split_seed, lock.rows)
    except ValueError as error:
        raise graph.spec.error(("data", "split"), str(error)) from error
    for split, rows in drawn.items():
        try:
            check_columns(data_section(configuration, lock, rows, split), lock.columns, table.path)
        except NodeError as error:
            raise graph.spec.error(("data", "template" if table.template else "format"), str(error)) from error
    if "exact_match" in graph.spec.tables.evaluate.metrics and data_format(table, lock) == "text":
        raise graph.spec.error(("evaluate", "metrics"), "exact_match needs answers; plain text has none")
    profiled = graph.spec.tables.profile.enabled
    if "train" not in drawn and (profiled or configuration.method != "none"):
        raise graph.spec.error(("data", "split"), "says nothing of train, and something is to be trained or measured")
    if not {"validation", "test"} & drawn.keys():
        raise graph.spec.error(("data", "split"), "has no validation and no test split, so nothing could be compared")
    keys = {}
    for split, rows in drawn.items():
        if split == "train" and configuration.method == "none" and not profiled:
            continue
        sections = {
            "data": data_section(configuration, lock, rows, split),
            "tokenizer": _tokenizer(graph, configuration),
        }
        address = f"data/{split}:prepare"
        taken = any(node.address == address for node in graph.nodes.values())
        key = graph.add(
            "prepare",
            address if not taken else f"data/{split}/{configuration.name}:prepare",
            sections,
            {},
            configuration=configuration.name,
            split=split,
        )
        keys[split] = key
    return keys


def _tokenizer(graph: Graph, configuration: Configuration) -> str:
    return graph.lock.models[identity(configuration.model)].tokenizer


def _add_replicate(graph: Graph, configuration: Configuration, seed: int | None) -> Replicate:
    spec, name = graph.spec, configuration.name
    sections, splits = graph.sections[name], graph.splits[name]
    base = name if seed is None else f"{name}/seed={seed}"
    about: dict[str, Any] = {"configuration": name, "seed": seed}
    train = None
    if seed is not None:
        train = graph.add("train", f"{base}:train", {**sections, "seed": seed}, {"train": splits["train"]}, **about)
    reads = {"adapter": train} if train else {}
    bare = {"model": sections["model"], "quantization": sections["quantization"]}
    outputs = dict.fromkeys(METRICS[metric].needs for metric in spec.tables.evaluate.metrics)
    predict: dict[tuple[str, str], str] = {}
    score: dict[str, str] = {}
    for split in ("validation", "test"):
        if split not in splits:
            continue
        for output in outputs:
            task: dict[str, Any] = {"output": output}
            if output == "generation":
                task |= {"max_new_tokens": spec.tables.evaluate.max_new_tokens, "do_sample": False}
            address = f"{base}:predict/{split}/{output}"
            inputs = {"data": splits[split], **reads}
            predict[split, output] = graph.add("predict", address, {**bare, "task": task}, inputs, split=split, **about)
        wanted = {metric: METRICS[metric].version for metric in sorted(spec.tables.evaluate.metrics)}
        inputs = {output: predict[split, output] for output in outputs}
        score[split] = graph.add("score", f"{base}:score/{split}", {"metrics": wanted}, inputs, split=split, **about)
    return Replicate(seed, train, predict, score)


def _add_profile(graph: Graph, configuration: Configuration) -> str:
    sections = graph.sections[configuration.name]
    protocol = graph.spec.tables.profile.model_dump(exclude={"enabled"})
    adapter = {key: value for key, value in sections["adapter"].items() if key not in _NO_COST_OF_ADAPTER}
    training = {key: sections["training"][key] for key in _COST_OF_TRAINING} if "training" in sections else {}
    measured = {
        "model": sections["model"],
        "quantization": sections["quantization"],
        "adapter": adapter,
        "training": training,
        "profile": protocol,
    }
    inputs = {"train": graph.splits[configuration.name]["train"]}
    return graph.add("profile", f"{configuration.name}:profile", measured, inputs, configuration=configuration.name)
