"""A finished adapter, or the model merged from it, as a Hugging Face directory with a model card.

The card says what the export is, from which data it was made and what it scored, all of it from state.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.analysis.common.format import metric_name, score
from lorafile.apply.work_groups import RequestBuilder
from lorafile.environment import installed
from lorafile.errors import ArgumentError, LoraError, MissingExtra
from lorafile.files.atomic import is_empty, replace_directory
from lorafile.graph.adapter_nodes import UNMERGEABLE
from lorafile.graph.settings import bare_sections
from lorafile.lock.lockfile import identity, tokenizer_files
from lorafile.plan.names import StudyRun, find_run
from lorafile.plan.plan import Plan
from lorafile.report.markdown import plain
from lorafile.results.gather import gather
from lorafile.results.results import Results, missing
from lorafile.results.serving_rules import problems, vllm_command
from lorafile.specs import Configuration
from lorafile.specs.catalogue import licence
from lorafile.specs.tables.methods import METHODS
from lorafile.state import State

_LAST = ("adapter_config.json", "config.json")  # what a directory is loaded by
_NOT_OF_A_MODEL = ("curve.jsonl.gz", "validation.jsonl.gz", "traceback.txt")
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


@dataclass(frozen=True)
class Exported:
    """What was written, and the command that serves it, where one was asked for."""

    directory: Path
    address: str
    files: tuple[str, ...]
    command: str = ""


@dataclass(frozen=True)
class ExportOptions:
    """What is written.

    :ivar seed: which replicate of a configuration; the first finished one otherwise
    :ivar dtype: type of merged weights; the base's own otherwise
    :ivar server: `vllm`: check first that it loads the result
    :ivar force: write into a directory that is not empty
    """

    seed: int | None = None
    merged: bool = False
    dtype: str | None = None
    server: str | None = None
    force: bool = False


def export(plan: Plan, state: State, name: str, out: Path, options: ExportOptions) -> Exported:
    """Write a finished adapter, or what is merged from it, into a directory.

    :param name: a configuration, or a run by its address or the beginning of its key
    :raises LoraError: when there is nothing to export, `out` is no empty directory, or the server refuses it
    """
    _check_directory(out, options.force)
    chosen = _finished(plan, state, name, options.seed)
    configuration, merged = chosen.configuration, options.merged
    if options.dtype is not None and not merged:
        raise ArgumentError("dtype", "is the data type of merged weights, so it needs merged too.")
    if merged and configuration.method in UNMERGEABLE:
        raise LoraError(_unmergeable(chosen.address, configuration.method))
    requests = RequestBuilder(plan.graph, state)
    files = _present(chosen, state)
    whole = merged or configuration.method == "full"
    base = plan.graph.lock.models[identity(configuration.model)]
    if options.server == "vllm" and not whole and (refusals := problems("vllm", files, base)):
        why = "; ".join(refusals)
        raise LoraError(f"vLLM cannot load {chosen.address}: {why}. Export it with --merged instead.")
    sections = plan.graph.sections[configuration.name]
    merged_dtype = (options.dtype or str(sections["model"]["dtype"])) if merged else ""
    with replace_directory(out, _LAST) as made:
        if merged:
            _merge(sections, requests.model_paths(configuration), files, merged_dtype, made)
        else:
            for file, path in files.items():
                shutil.copyfile(path, made / file)
            if whole:
                _copy_tokenizer(requests.model(configuration), made)
        text = _card(plan, gather(plan, state), chosen, made, merged_dtype)
        (made / "README.md").write_text(text, encoding="utf-8")
        names = sorted(file.name for file in made.iterdir())
    command = ""
    if options.server == "vllm":
        path = configuration.model.path  # a server loads the base from the hub, or from this machine
        local = not _is_hub_id(path, plan.graph.spec.file.parent)
        command = vllm_command(str(requests.model(configuration)) if local else path, out, whole)
    return Exported(out, chosen.address, tuple(names), command)


def _unmergeable(address: str, method: str) -> str:
    about = METHODS.get(method)
    if about is None or about.virtual == "embeddings":
        return f"{address} has no separate adapter, so there is nothing to merge."
    return f"{address} cannot be merged: PEFT does not write {about.title} into the base's weights."


def _check_directory(out: Path, force: bool) -> None:
    if os.path.lexists(out) and not out.is_dir():
        raise LoraError(f"{out} is not a directory. Pass another path for the export.")
    if out.is_dir() and not is_empty(out) and not force:
        raise LoraError(f"{out} is not empty. Pass another directory, or --force to write into it.")


def _finished(plan: Plan, state: State, name: str, seed: int | None) -> StudyRun:
    """Return the finished run that a name means.

    :raises LoraError: when there is none of this name, it has no adapter, or it is not finished
    """
    run = find_run(plan, state, name, seed)
    if run.configuration.method == "none":
        raise LoraError(f"{name} is the untuned model; there is nothing to export.")
    if run.attempt.outcome != "done":
        raise LoraError(
            f"{name} is not trained yet, or its runs did not finish. Run: lora apply {plan.graph.spec.file}"
        )
    return run


def _present(chosen: StudyRun, state: State) -> dict[str, str]:
    """Return file name -> path of what a replicate left.

    :raises LoraError: when its bytes have gone
    """
    outputs = {name: digest for name, digest in chosen.attempt.outputs.items() if name not in _NOT_OF_A_MODEL}
    for name, digest in outputs.items():
        if not state.objects.has(digest):
            raise LoraError(f"{name} of {chosen.address} is no longer in the state. Train it again to recreate it.")
    return {name: str(state.objects.proven(digest)) for name, digest in outputs.items()}


def _copy_tokenizer(model: Path, out: Path) -> None:
    """Copy what a model's directory holds next to its weights: tokenizer, generation settings, its own code."""
    (out / "generation_config.json").unlink(missing_ok=True)  # cut down to what a study reads
    others = [file for file in (model / "generation_config.json", *sorted(model.glob("*.py"))) if file.is_file()]
    for file in (*tokenizer_files(model), *others):
        shutil.copyfile(file, out / file.name)


def _merge(sections: dict[str, Any], paths: dict[str, Any], files: dict[str, str], dtype: str, out: Path) -> None:
    """Write the base with the adapter merged into it.

    :param paths: where the base is
    :param files: the adapter's
    :raises MissingExtra: without torch
    """
    if installed("torch") is None:
        raise MissingExtra("lora export --merged", "torch")
    from lorafile.engine.nodes.merge import merged

    model: Any = merged(bare_sections(sections), paths, files, dtype).model
    model.save_pretrained(out)
    _copy_tokenizer(Path(paths["model"]), out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # where the base was on this machine
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _card(plan: Plan, results: Results, chosen: StudyRun, made: Path, merged: str) -> str:
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


def _is_hub_id(path: str, folder: Path) -> bool:
    """Return whether a path of a spec in a folder names something on the hub, and nothing on this machine."""
    return not path.startswith("builtin:") and not (folder / Path(path).expanduser()).exists()


def _front_matter(configuration: Configuration, folder: Path, whole: bool) -> str:
    from huggingface_hub import ModelCardData

    data = configuration.data
    about = ModelCardData(
        base_model=configuration.model.path if _is_hub_id(configuration.model.path, folder) else None,
        base_model_relation="adapter" if not whole else "merge" if configuration.method != "full" else "finetune",
        library_name="transformers" if whole else "peft",
        datasets=[data.path] if _is_hub_id(data.path, folder) and not configuration.data.private else None,
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
        text += f" It was truncated to rank {chosen.truncated} by singular value decomposition after training."
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
    if chosen.configuration.train is not None and "trainer" in sections:
        rows.append(("trained by", f"{chosen.configuration.train.trainer}, a program of the study's"))
    if source := plan.graph.spec.start(chosen.configuration):
        rows.append(("started from", f"the adapter of {source.name} of the same seed"))
    for part in ("quantization", "adapter", "training", "trainer"):
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
        return [("data", "private; not listed here"), *counts]
    terms = licence(configuration.data.like) or "not stated by the study"
    rows: list[tuple[str, Any]] = [("data", configuration.data.path), ("revision", lock.revision), ("licence", terms)]
    rows += [(f"{split} file (sha256)", digest) for split, digest in lock.digests.items()]
    return [(name, value) for name, value in [*rows, *counts] if value is not None]


def _figures(results: Results, chosen: StudyRun, merged: str) -> str:
    """Return a row for each metric and split of the very run that is exported."""
    about: tuple[Any, ...] = (chosen.configuration.name, chosen.seed, chosen.key)
    rows, key = results.runs.to_dict("records"), "key"
    if chosen.truncated is not None:
        about = (chosen.configuration.name, chosen.seed, chosen.truncated)
        rows, key = results.truncations.to_dict("records"), "rank"
    run = next((row for row in rows if (row["configuration"], row["seed"], row[key]) == about), None)
    if run is None:
        return "The study's report has no results for this run yet.\n"
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
    return "\n".join(lines) + f"\n\nMeasured for this run only{attached}, on held-out data.\n"


def _table(rows: list[tuple[str, Any]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {plain(name)} | {plain(value)} |" for name, value in rows)]) + "\n"
