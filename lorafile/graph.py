"""Study and lock to nodes: every unit of work that a study declares, each under its key."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from lorafile.engine.templates import check_columns, detect
from lorafile.errors import NodeError
from lorafile.lockfile import DataLock, Lock, ModelLock, identity
from lorafile.metrics import METRICS
from lorafile.specs import Configuration, Spec
from lorafile.specs.modules import layer_indexes, target_names
from lorafile.specs.settings import DataTable
from lorafile.specs.snapshot import snapshot
from lorafile.splits import Rows, draw

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


def resolved_sections(configuration: Configuration, lock: Lock) -> dict[str, Any]:
    """Return a configuration's sections with everything filled in that its model decides.

    :raises NodeError: when a target is nowhere in the model
    """
    model = lock.models[identity(configuration.model)]
    # Small steps are lost in half-precision weights: all weights are trained in float32 unless the spec says otherwise.
    own = "float32" if configuration.method == "full" else model.dtype
    dtype = own if configuration.model.dtype == "auto" else configuration.model.dtype
    sections: dict[str, Any] = {
        "model": {
            "weights": model.weights,
            "config": model.config,
            "tokenizer": model.tokenizer,
            "dtype": dtype,
            "trust_remote_code": configuration.model.trust_remote_code,
        },
        "quantization": configuration.quantization,
        "adapter": {"method": configuration.method},
    }
    if configuration.lora is not None:
        lora = dict(configuration.lora)
        lora["target_modules"] = target_names(lora["target_modules"], model.modules)
        if isinstance(lora["layers_to_transform"], str):
            lora["layers_to_transform"] = _layers(lora["layers_to_transform"], model)
        sections["adapter"] |= _without_off(lora)
    if configuration.train is not None:
        sections["training"] = {
            key: value for key, value in configuration.train.model_dump().items() if value is not None
        }
    return sections


def _layers(word: str, model: ModelLock) -> list[int]:
    """Return the layers of a word; an empty list would mean every layer to PEFT."""
    layers = layer_indexes(word, layer_count(model.modules))
    if not layers:
        raise NodeError(
            f'lora.layers_to_transform: "{word}" holds no layer of a model that has {layer_count(model.modules)}.'
        )
    return layers


def layer_count(modules: dict[str, list[int]]) -> int:
    """Return the number of numbered blocks of a model."""
    return 1 + max((next(int(part) for part in name.split(".") if part.isdigit()) for name in modules), default=-1)


def section_digest(section: Any) -> str:
    """Return the sha256 of a section as canonical JSON (RFC 8785)."""
    number = id(section)
    known = _DIGESTS.get(number)
    if known is None or known[0] is not section:
        known = (section, hashlib.sha256(rfc8785.dumps(section)).hexdigest())
        _DIGESTS[number] = known
    return known[1]


_DIGESTS: dict[int, tuple[Any, str]] = {}  # a section is shared by all seeds of a configuration: hash it once


def _is_off(name: str, value: Any) -> bool:
    """Return whether a setting is off: unset, empty, or false where PEFT's own default is not true."""
    by_default_on = snapshot()["LoraConfig"][name]["default"] is True
    return value is None or value in ([], {}) or (value is False and not by_default_on)


def _without_off(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is off, so that a setting that a new PEFT adds, off by default, changes no key."""
    return {name: value for name, value in settings.items() if not _is_off(name, value)}


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
            check_columns(_data_section(configuration, lock, rows, split), lock.columns, table.path)
        except NodeError as error:
            raise graph.spec.error(("data", "template" if table.template else "format"), str(error)) from error
    if "exact_match" in graph.spec.tables.evaluate.metrics and _format(table, lock) == "text":
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
            "data": _data_section(configuration, lock, rows, split),
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


def _data_section(configuration: Configuration, lock: DataLock, rows: Rows, split: str) -> dict[str, Any]:
    table = configuration.data
    return {
        "digest": lock.digests[rows.source],
        "rows": {"seed": rows.seed, "start": rows.start, "stop": rows.stop},
        "format": _format(table, lock),
        "template": table.template.model_dump() if table.template else None,
        "columns": table.columns,
        "max_length": table.max_length,
        "too_long": table.too_long,
        # Held-out losses are of the answer alone, so that they compare whatever the training loss was.
        "completion_only_loss": table.completion_only_loss or split != "train",
    }


def _format(table: DataTable, lock: DataLock) -> str:
    """Return the format of a data set: what the spec says, or what its columns tell."""
    if table.template:
        return "template"
    return detect([*lock.columns, *table.columns], table.path) if table.format == "auto" else table.format


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
