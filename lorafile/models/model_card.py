"""The model card of an export: what it is, from which data, and what it scored, all of it from state."""

import json
from pathlib import Path
from typing import Any

from lorafile.analysis.common.format import metric_name, score
from lorafile.lock.lockfile import identity
from lorafile.plan.names import StudyRun
from lorafile.plan.plan import Plan
from lorafile.report.markdown import plain
from lorafile.results.results import Results, missing
from lorafile.specs import Configuration
from lorafile.specs.catalogue import licence

_ENVIRONMENT = ("device", "driver", "torch", "transformers", "peft", "lorafile")
_HERE = '"path/of/this/directory"'
_ADAPTER_USE = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base})
model = PeftModel.from_pretrained(base, {here})
"""
_MODEL_USE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({here})
tokenizer = AutoTokenizer.from_pretrained({here})
"""


def card(plan: Plan, results: Results, chosen: StudyRun, made: Path, merged: str) -> str:
    """Return a model card: YAML for the hub, then Markdown in which every name is plain text.

    :param made: the directory that it describes, as it is written
    :param merged: the type of merged weights; empty for what is not merged
    """
    whole = not (made / "adapter_config.json").is_file()
    usage = _MODEL_USE if whole else _ADAPTER_USE
    parts = [
        _front_matter(chosen.configuration, plan.graph.spec.file.parent, whole),
        f"# {plain(chosen.configuration.name)}, seed {chosen.seed}\n",
        _what(chosen, merged),
        "## Use\n",
        f"```python\n{usage.format(base=json.dumps(chosen.configuration.model.path), here=_HERE)}```\n",
        "## Where it comes from\n",
        _table(_origin(plan, results, chosen)),
        "## Data\n",
        _table(_data(plan, chosen.configuration)),
        "## Figures\n",
        _figures(results, chosen, merged),
        "## Environment\n",
        _table([(name, value) for name in _ENVIRONMENT if (value := chosen.attempt.environment.get(name))]),
    ]
    return "\n".join(parts)


def is_hub_id(path: str, folder: Path) -> bool:
    """Return whether a path of a spec in a folder names something on the hub, and nothing on this machine."""
    return not path.startswith("builtin:") and not (folder / Path(path).expanduser()).exists()


def _front_matter(configuration: Configuration, folder: Path, whole: bool) -> str:
    from huggingface_hub import ModelCardData

    data = configuration.data
    about = ModelCardData(
        base_model=configuration.model.path if is_hub_id(configuration.model.path, folder) else None,
        base_model_relation="adapter" if not whole else "merge" if configuration.method != "full" else "finetune",
        library_name="transformers" if whole else "peft",
        datasets=[data.path] if is_hub_id(data.path, folder) and not configuration.data.private else None,
        tags=["lorafile", configuration.method],
    )
    return f"---\n{about.to_yaml()}\n---\n"


def _what(chosen: StudyRun, merged: str) -> str:
    configuration = chosen.configuration
    base = f"`{configuration.model.path}`"
    if configuration.method == "full":
        text = f"{base}, fine-tuned in full."
    elif merged:
        text = f"{base} with an adapter ({configuration.method}) merged into it; weights in {merged}."
    else:
        text = f"An adapter ({configuration.method}) for {base}."
    if chosen.truncated is not None:
        text += f" It was cut to rank {chosen.truncated} by singular value decomposition after training."
    return f"{text}\n"


def _origin(plan: Plan, results: Results, chosen: StudyRun) -> list[tuple[str, Any]]:
    sections = plan.graph.sections[chosen.configuration.name]
    lock = plan.graph.lock.models[identity(chosen.configuration.model)]
    rows: list[tuple[str, Any]] = [
        ("study", results.study),
        ("question", results.question),
        ("configuration", chosen.configuration.name),
        ("seed", chosen.seed),
        ("address", chosen.address),
        ("key", chosen.attempt.key),
        ("base", f"{chosen.configuration.model.path}{f' at {lock.revision}' if lock.revision else ''}"),
        ("base weights (sha256)", lock.weights),
    ]
    for part in ("quantization", "adapter", "training"):
        settings = sections.get(part) or {}
        rows += [(f"{part}: {key}", json.dumps(value, ensure_ascii=False)) for key, value in settings.items()]
    return [(name, value) for name, value in rows if value not in (None, "")]


def _data(plan: Plan, configuration: Configuration) -> list[tuple[str, Any]]:
    lock = plan.graph.lock.data[identity(configuration.data)]
    counts = [
        (f"{split} examples", plan.results[key].figures.get("examples"))
        for split, key in plan.graph.splits[configuration.name].items()
        if key in plan.results
    ]
    if configuration.data.private:
        return [("data", "private; not named here"), *counts]
    terms = licence(configuration.data.like) or "not stated by the study"
    rows: list[tuple[str, Any]] = [("data", configuration.data.path), ("revision", lock.revision), ("licence", terms)]
    rows += [(f"{split} file (sha256)", digest) for split, digest in lock.digests.items()]
    return [(name, value) for name, value in [*rows, *counts] if value is not None]


def _figures(results: Results, chosen: StudyRun, merged: str) -> str:
    """Return a row for each metric and split of the very run that is exported."""
    frame = results.runs if chosen.truncated is None else results.truncations
    run = next((row for row in frame.to_dict("records") if _is_of(row, chosen)), None)
    if run is None:
        return "The study's report has no figures of this run yet.\n"
    lines = ["| metric | split | value | examples |", "|---|---|---:|---:|"]
    for metric in results.metrics:
        for split in ("validation", "test"):
            value: Any = run.get(f"{split}.{metric}")
            examples: Any = run.get(f"{split}.examples")
            if not missing(value):
                count = "" if missing(examples) else int(examples)
                lines.append(
                    f"| {plain(metric_name(metric))} | {split} | {plain(score(metric, float(value)))} | {count} |"
                )
    attached = ", with the adapter attached" if merged else ""
    return "\n".join(lines) + f"\n\nMeasured on this run alone{attached}, on data that it was not trained on.\n"


def _is_of(row: dict[Any, Any], chosen: StudyRun) -> bool:
    same = row["configuration"] == chosen.configuration.name and row["seed"] == chosen.seed
    return same and bool(row["key"] == chosen.key if chosen.truncated is None else row["rank"] == chosen.truncated)


def _table(rows: list[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {plain(name)} | {plain(value)} |" for name, value in rows)]) + "\n"
