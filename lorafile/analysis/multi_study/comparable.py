"""What two studies' configurations have in common: which are the same, and what their figures were measured on."""

import hashlib
from typing import Any

import rfc8785

from lorafile.engine.metrics.registry import built_in
from lorafile.graph.graph import Graph
from lorafile.graph.metrics import is_head
from lorafile.results.results import grouped
from lorafile.results.study_facts import setting_value
from lorafile.specs import Configuration
from lorafile.specs.tables.methods import METHODS

TUNED = "chosen on validation"  # each at its own best: its value is no difference between two of them
EXAMPLES = "training examples"
_OF_EXAMPLES = {"digest": "the held-out examples", "rows": "the held-out examples", "template": "the template"}


def settings_of(graph: Graph, c: Configuration) -> dict[str, tuple[str, Any]]:
    """Return each setting as (its identity, its value as a reader knows it); alpha written as `2r` is no number."""
    sections = graph.sections[c.name]
    adapter = sections["adapter"]
    settings: dict[str, Any] = {"method": c.method, "quantization": sections["quantization"]}
    if c.method != "full":  # all weights are trained in a type of their own
        settings["model.dtype"] = sections["model"]["dtype"]
    if c.method == "none":
        settings["none.shots"] = c.shots
    else:
        settings[EXAMPLES] = _training_data(graph, c)
    settings |= {f"{c.method}.{name}": value for name, value in adapter.items() if name != "method"}
    settings |= {f"train.{name}": value for name, value in sections.get("training", {}).items()}
    alpha = METHODS[c.method].alpha if c.method in METHODS else None
    if alpha and c.alpha_of_rank is not None:
        settings[f"{c.method}.{alpha}"] = f"{c.alpha_of_rank:g}r"
    tuned = {axis.setting for axis in c.tuned.axes} if c.tuned else set()
    return {
        name: (TUNED if name in tuned else _digest(value), _shown(c, name, value, adapter))
        for name, value in settings.items()
    }


def _shown(c: Configuration, name: str, resolved: Any, adapter: dict[str, Any]) -> Any:
    if name in ("model.dtype", EXAMPLES, "method") or isinstance(resolved, str):
        return resolved
    written = setting_value(c, name, adapter)
    return resolved if written is None else written


def _training_data(graph: Graph, c: Configuration) -> str:
    """Return what is trained on, such that two data sets never read the same."""
    key = graph.splits[c.name]["train"]
    rows = graph.nodes[key].settings["data"]["rows"]
    return f"{rows['stop'] - rows['start']} of {c.data.path} ({key[:6]})"


def identity(graph: Graph, c: Configuration) -> str:
    """Return equal text for configurations whose runs have equal keys under equal seeds, whatever they are called."""
    trained_on = c.method != "none" and graph.splits[c.name]["train"]
    return _digest([graph.sections[c.name], trained_on, c.shots, c.open and c.name])


def predictions(graph: Graph, c: Configuration) -> dict[tuple[str, str], str]:
    """Return (split, output) -> what decides its predictions besides the model: examples, and how answers are drawn."""
    nodes = {place: graph.nodes[key] for place, key in graph.replicates[c.name][0].predict.items()}
    return {place: _digest([node.settings["task"], node.inputs["data"], node.version]) for place, node in nodes.items()}


def measured_on(graph: Graph, c: Configuration, metric: str, split: str) -> dict[str, str]:
    """Return what a metric's figures of a configuration depend on besides its settings: name -> digest.

    Two figures stand in one comparison only where all of it is equal; empty where there is no such split.
    """
    replicate = graph.replicates[c.name][0]
    own = graph.own.get(metric)
    output = own.needs if own else built_in(metric, is_head(c)).needs
    key = replicate.predict.get((split, output))
    if key is None:
        return {}
    node = graph.nodes[key]
    data = dict(graph.nodes[node.inputs["data"]].settings["data"])
    data.pop("shots", None)  # another prompt to the same examples
    parts = grouped((_OF_EXAMPLES.get(name, f"data.{name}"), _digest(value)) for name, value in data.items())
    digests = {name: "".join(values) for name, values in parts.items()}
    model = graph.sections[c.name]["model"]
    digests["the model"] = _digest([model["weights"], model["config"], model["tokenizer"]])
    task = {name: value for name, value in node.settings["task"].items() if name != "seed"}
    digests["the way answers are generated"] = _digest(task)
    key = replicate.score.get(split)
    settings = graph.nodes[key].settings if key else {}
    computed = [settings.get(part, {}).get(metric) for part in ("metrics", "options")]
    digests["the metric"] = own.digest if own else _digest(computed)
    return digests


def _digest(value: Any) -> str:
    return hashlib.sha256(rfc8785.dumps(value)).hexdigest()
