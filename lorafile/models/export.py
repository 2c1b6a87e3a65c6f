"""A finished adapter, or the model merged from it, as a Hugging Face directory with a card that says what it is."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.apply.work_groups import RequestBuilder
from lorafile.environment import installed
from lorafile.errors import LoraError, MissingExtra
from lorafile.files.atomic import is_empty, replace_directory
from lorafile.graph.adapter_nodes import UNMERGEABLE
from lorafile.graph.settings import bare_sections
from lorafile.lock.lockfile import identity, tokenizer_files
from lorafile.models.model_card import card, is_hub_id
from lorafile.plan.names import StudyRun, find_run
from lorafile.plan.plan import Plan
from lorafile.results.gather import gather
from lorafile.results.serving_rules import vllm_command, vllm_problems
from lorafile.specs import Configuration
from lorafile.state import State

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_LAST = ("adapter_config.json", "config.json")  # what a directory is loaded by
_NOT_OF_A_MODEL = ("curve.jsonl.gz", "traceback.txt")


@dataclass(frozen=True)
class Exported:
    """What was written, and the command that serves it, where one was asked for."""

    directory: Path
    address: str
    files: tuple[str, ...]
    command: str = ""


def export(
    plan: Plan,
    state: State,
    name: str,
    out: Path,
    *,
    seed: int | None = None,
    merged: bool = False,
    dtype: str | None = None,
    server: str | None = None,
    force: bool = False,
) -> Exported:
    """Write a finished adapter, or what is merged from it, into a directory.

    :param name: a configuration, or a run by its address or the beginning of its key
    :param seed: which replicate of a configuration; the first finished one otherwise
    :param dtype: type of merged weights; the base's own otherwise
    :param server: `vllm`: check first that it loads the result
    :raises LoraError: when there is nothing to export, `out` is no empty directory, or the server refuses it
    """
    if os.path.lexists(out) and not out.is_dir():
        raise LoraError(f"{out} is no directory, and an export is one; name another place for it.")
    if out.is_dir() and not is_empty(out) and not force:
        raise LoraError(f"{out} is not empty; name another directory, or pass --force to write into it.")
    chosen = _finished(plan, state, name, seed)
    if dtype is not None and not merged:
        raise LoraError("--dtype is the type of merged weights; pass --merged as well.")
    if merged and chosen.configuration.method in UNMERGEABLE:
        raise LoraError(f"{chosen.address} is no change beside the weights, so there is nothing to merge.")
    places = RequestBuilder(plan.graph, state)
    files = _present(chosen, state)
    whole = merged or chosen.configuration.method == "full"
    served = plan.graph.lock.models[identity(chosen.configuration.model)]
    if server == "vllm" and not whole and (problems := vllm_problems(files, served)):
        told = "; ".join(problems)
        raise LoraError(f"vLLM would not load {chosen.address}: {told}. Export it with --merged instead.")
    with replace_directory(out, _LAST) as made:
        if merged:
            _merge(plan, chosen, (places, files), dtype, made)
        else:
            _copy(chosen, places, files, made)
        told = card(plan, gather(plan, state), chosen, made, dtype_of(plan, chosen, dtype) if merged else "")
        (made / "README.md").write_text(told, encoding="utf-8")
        names = sorted(file.name for file in made.iterdir())
    command = vllm_command(_base(chosen.configuration, places), out, whole) if server == "vllm" else ""
    return Exported(out, chosen.address, tuple(names), command)


def _base(configuration: Configuration, places: RequestBuilder) -> str:
    """Return what a server can load the base from: its hub id, or where it is on this machine."""
    path = configuration.model.path
    return path if is_hub_id(path, places.graph.spec.file.parent) else str(places.model(configuration))


def dtype_of(plan: Plan, chosen: StudyRun, dtype: str | None) -> str:
    """Return the type of merged weights: what was asked for, or the base's own."""
    return dtype or str(plan.graph.sections[chosen.configuration.name]["model"]["dtype"])


def _finished(plan: Plan, state: State, name: str, seed: int | None) -> StudyRun:
    """Return the finished run that a name means.

    :raises LoraError: when there is none of this name, it has no adapter, or it is not finished
    """
    run = find_run(plan, state, name, seed)
    if run.configuration.method == "none":
        raise LoraError(f"{name} is the untuned model: it has nothing of its own to export.")
    if run.attempt.outcome != "done":
        raise LoraError(
            f"{name} is not trained yet, or its runs did not finish. Run: lora apply {plan.graph.spec.file}"
        )
    return run


def _present(chosen: StudyRun, state: State) -> dict[str, str]:
    """Return file name -> path of what a replicate left.

    :raises LoraError: when its bytes have gone
    """
    gone = [name for name, digest in chosen.attempt.outputs.items() if not state.objects.has(digest)]
    wanted = [name for name in gone if name not in _NOT_OF_A_MODEL]
    if wanted:
        raise LoraError(
            f"{wanted[0]} of {chosen.address} has gone from the state; only training it again makes it anew."
        )
    kept = {name: digest for name, digest in chosen.attempt.outputs.items() if name not in _NOT_OF_A_MODEL}
    return {name: str(state.objects.proven(digest)) for name, digest in kept.items()}


def _copy(chosen: StudyRun, places: RequestBuilder, files: dict[str, str], out: Path) -> None:
    """Copy what training left: an adapter alone, a whole model with its tokenizer."""
    for name, path in files.items():
        shutil.copyfile(path, out / name)
    if chosen.configuration.method == "full":
        _copy_tokenizer(places.model(chosen.configuration), out)


def _copy_tokenizer(model: Path, out: Path) -> None:
    """Copy what a model's directory holds beside its weights: tokenizer, generation settings, its own code."""
    (out / "generation_config.json").unlink(missing_ok=True)  # cut down to what a study reads
    others = [file for file in (model / "generation_config.json", *sorted(model.glob("*.py"))) if file.is_file()]
    for file in (*tokenizer_files(model), *others):
        shutil.copyfile(file, out / file.name)


def _merge(
    plan: Plan, chosen: StudyRun, found: tuple[RequestBuilder, dict[str, str]], dtype: str | None, out: Path
) -> None:
    """Write the base with the adapter merged into it.

    :raises MissingExtra: without torch
    """
    if installed("torch") is None:
        raise MissingExtra("lora export --merged", "torch")
    from lorafile.engine.nodes.merge import merged

    places, files = found
    settings = bare_sections(plan.graph.sections[chosen.configuration.name])
    paths = places.model_paths(chosen.configuration)
    whole = merged(settings, paths, files, dtype_of(plan, chosen, dtype))
    model: Any = whole.model
    model.save_pretrained(out)
    _copy_tokenizer(Path(paths["model"]), out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)  # where the base was on this machine
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
