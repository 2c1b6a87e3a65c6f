"""What a study was run on: its model, its data, its metrics."""

from typing import Any

from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import identity
from lorafile.plan.plan import Plan
from lorafile.results.results import grouped
from lorafile.specs import Configuration
from lorafile.specs.optimizers import DEFAULT_OPTIMIZER
from lorafile.specs.tables.methods import METHODS
from lorafile.specs.tables.quantizations import quantization_name

_SWITCHES = {"use_dora": "dora", "use_rslora": "rslora", "velora_config": "velora", "use_bdlora": "bdlora"}


def data_of(plan: Plan) -> dict[str, Any]:
    """Return the data's path, format and template, and what each split came to."""
    spec = plan.graph.spec
    prepared = plan.graph.splits[spec.configurations[0].name]
    section = plan.graph.nodes[next(iter(prepared.values()))].settings["data"]
    table = spec.tables.data
    return {
        "path": table.path,
        "format": section["format"],
        **({"template": section["template"]} if section.get("template") else {}),
        "max_length": table.max_length,
        **({"private": True} if table.private else {}),
        "splits": {s: plan.results[key].figures if key in plan.results else {} for s, key in prepared.items()},
    }


def model_of(graph: Graph) -> dict[str, Any]:
    """Return the model's path, architecture, parameters, revision, and the type that the study loads it in."""
    table = graph.spec.tables.model
    lock = graph.lock.models[identity(table)]
    architecture = (lock.settings.get("architectures") or [lock.settings.get("model_type", "unknown")])[0]
    return {
        "path": table.path,
        "architecture": architecture,
        "parameters": lock.parameters,
        "dtype": lock.dtype if table.dtype == "auto" else table.dtype,
        "revision": lock.revision,
    }


def hides_answers(graph: Graph) -> bool:
    """Return whether there are prompts that no report shows: a tuned model's answers can hold what it was tuned on."""
    prompts = graph.spec.tables.evaluate.prompts
    if prompts is None or prompts.private is not None:
        return bool(prompts and prompts.private)
    return bool(graph.spec.tables.data.private)


def topics(configurations: tuple[Configuration, ...]) -> tuple[str, ...]:
    """Return what the configurations use, in their order, each once: `lora`, `dora`, `start:pissa`, `base:nf4`."""
    used: dict[str, None] = {}
    for configuration in configurations:
        if configuration.method not in ("none", "full"):
            used |= dict.fromkeys([configuration.method, *_adapter(configuration.adapter or {})])
        if configuration.train is not None and configuration.train.loraplus_lr_ratio is not None:
            used["loraplus"] = None
        if configuration.train is not None and configuration.train.optim != DEFAULT_OPTIMIZER:
            used[f"optim:{configuration.train.optim}"] = None
        if configuration.quantization:
            used[f"base:{_base(configuration.quantization)}"] = None
    return tuple(used)


def _adapter(settings: dict[str, Any]) -> list[str]:
    used = [topic for switch, topic in _SWITCHES.items() if settings.get(switch)]
    start = settings.get("init_lora_weights")
    return [*used, f"start:{start.partition('_niter')[0]}"] if isinstance(start, str) else used


def _base(quantization: dict[str, Any]) -> str:
    library = quantization.get("quant_method", "bitsandbytes")
    if library != "bitsandbytes":
        return str(library)
    return "int8" if quantization.get("load_in_8bit") else str(quantization.get("bnb_4bit_quant_type", "fp4"))


def configuration_rows(
    everyone: tuple[Configuration, ...], runs: list[dict[str, Any]], sections: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return a row for each configuration: what varies in the study, and how many of its runs have figures.

    :param sections: of each its resolved ones; of a matched placement the rank is the solved one
    """
    outcomes = grouped((run["configuration"], run["outcome"]) for run in runs)
    solved = any(c.matched for c in everyone)
    tuned = {c.name: [axis.setting for axis in c.tuned.axes] if c.tuned else [] for c in everyone}
    varied = dict.fromkeys([name for c in everyone for name in c.varied])
    varied |= dict.fromkeys([name for names in tuned.values() for name in names])
    rows = []
    for c in everyone:
        adapter, ended = sections[c.name]["adapter"], outcomes.get(c.name, [])
        row: dict[str, Any] = {
            "configuration": c.name,
            "sweep": c.sweep,
            "aliases": list(c.aliases),
            "method": c.method,
            "trained": c.method != "none",
            "rank": adapter.get("r") if solved else None,
            "alpha": adapter.get("lora_alpha") if solved else None,
            "replicates": len(ended),
            "done": ended.count("done"),
            "outcomes": ", ".join(f"{outcome} {ended.count(outcome)}" for outcome in dict.fromkeys(ended)),
            **({"shots": c.shots} if c.method == "none" else {}),
            "tuned": tuned[c.name],
        }
        settings = {
            setting: None if c.open and setting in row["tuned"] else setting_value(c, setting, adapter)
            for setting in varied
        }
        rows.append(row | settings)
    return rows


def setting_value(c: Configuration, setting: str, adapter: dict[str, Any]) -> Any:
    """Return a setting as the spec wrote it for this configuration, or its default; None where it does not apply."""
    method = METHODS.get(c.method)
    if c.matched and method and setting in (f"{c.method}.{method.rank}", f"{c.method}.{method.alpha}"):
        return adapter[setting.partition(".")[2]]  # solved for the model
    if setting in c.varied:
        return c.varied[setting]
    section, _, name = setting.partition(".")
    if section == "method":
        return c.method
    if section == "quantization":
        return quantization_name(c.quantization)
    table: Any = {
        c.method: c.adapter,
        "train": c.train and c.train.model_dump(),
        "model": c.model.model_dump(),
        "data": c.data.model_dump(),
        "none": {"shots": c.shots} if c.method == "none" else None,
    }.get(section)
    for part in name.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table
