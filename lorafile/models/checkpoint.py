"""Checkpoints from elsewhere: read without unpickling anything, and compared with the base that they are to fit."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorafile.engine.data.hub import snapshot
from lorafile.engine.data.sources import BUILTIN
from lorafile.errors import NodeError
from lorafile.files.digests import json_digest
from lorafile.files.jsonl import read_json
from lorafile.files.user_cache import cached_digest
from lorafile.lock.lockfile import ModelLock, weight_files
from lorafile.lock.weights import headers

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# What an adapter's settings say of where it was made, and not of what it computes.
ABOUT = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "revision",
    "runtime_config",
    "task_type",
)
_PICKLED = ("adapter_model.bin", "pytorch_model.bin", "pytorch_model.bin.index.json")
_LORA = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A trained adapter, or a whole model.

    :ivar name: as the user wrote it
    :ivar kind: `adapter` or `model`
    :ivar digest: over its settings and weights, whatever its directory is called
    :ivar files: file name -> where it is
    :ivar settings: adapter_config.json, or config.json
    """

    name: str
    directory: Path
    kind: str
    digest: str
    files: dict[str, Path]
    settings: dict[str, Any]


def open_checkpoint(name: str) -> Checkpoint:
    """Return the checkpoint in a directory here, or of a hub id.

    :raises NodeError: when it is nowhere, is no checkpoint, or has only weights that can run code
    """
    directory = Path(name).expanduser()
    if not directory.is_dir():
        if directory.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise NodeError(f"There is no directory {directory}. Pass a directory with a checkpoint, or a hub id.")
        directory = snapshot(name, "model", None)
    if (directory / "adapter_config.json").is_file():
        weights = [directory / "adapter_model.safetensors"]
        files = {file: directory / file for file in ADAPTER_FILES}
        kind = "adapter"
    else:
        weights = weight_files(directory)
        files = {file.name: file for file in sorted(directory.glob("*.json")) if file.name != "trainer_state.json"}
        files |= {file.name: file for file in weights}
        kind = "model"
    _check_complete(directory, kind, weights)
    file = directory / ("adapter_config.json" if kind == "adapter" else "config.json")
    settings = read_settings(file)
    if not isinstance(settings, dict):
        raise NodeError(f"{file} does not contain a JSON object.")
    digests = [(file.name, cached_digest(file)) for file in weights]
    meaning = {key: _sorted(value) for key, value in settings.items() if kind == "model" or key not in ABOUT}
    digest = json_digest([kind, meaning, digests], sort_keys=True)
    return Checkpoint(name, directory, kind, digest, files, settings)


def _check_complete(directory: Path, kind: str, weights: list[Path]) -> None:
    settings = directory / ("adapter_config.json" if kind == "adapter" else "config.json")
    if weights and all(file.is_file() for file in (*weights, settings)):
        return
    pickled = [name for name in _PICKLED if (directory / name).is_file()]
    if pickled:
        raise NodeError(
            f"{directory} holds pickled weights ({pickled[0]}), which are never loaded, because they can run code. "
            "If you trust them, load them and write safetensors with save_pretrained()."
        )
    steps = sorted(entry.name for entry in directory.glob("checkpoint-*") if entry.is_dir())
    hint = f" It has {', '.join(steps)}; pass one of them." if steps else ""
    missing = ADAPTER_FILES[1] if kind == "adapter" else "adapter_config.json, or config.json with .safetensors"
    raise NodeError(f"{directory} is not a checkpoint: it has no {missing}.{hint}")


def check_fits(checkpoint: Checkpoint, model: ModelLock, path: str) -> list[str]:
    """Check that an adapter fits the base that it is to be put on, and return warnings.

    Modules are compared by layer and last name, because a hub checkpoint may name what stands before otherwise.

    :raises NodeError: when it adapts a module that the base lacks, or one of another shape
    """
    if checkpoint.kind != "adapter":
        return []
    shapes: dict[tuple[str, str], list[list[int]]] = {}
    for module, shape in model.modules.items():
        shapes.setdefault(_place(module), []).append(sorted(shape))
    if not checkpoint.settings.get("target_parameters"):
        for module, shape in lora_shapes(checkpoint).items():
            here = shapes.get(_place(module))
            if not _place(module)[0] or (here and sorted(shape) in here):
                continue
            problem = f"it adapts {module}, which the model does not have"
            if here:
                problem = f"{module} is {shape[1]} → {shape[0]} there and {here[0][1]} × {here[0][0]} here"
            raise NodeError(f"The adapter {checkpoint.name} does not match the model {path}: {problem}.")
    named = str(checkpoint.settings.get("base_model_name_or_path") or "")
    same = {Path(path.removeprefix(BUILTIN)).name.lower(), path.lower(), model.revision}
    if named and named.lower() not in same and Path(named).name.lower() not in same:
        return [f"{checkpoint.name} states that it was trained on {named}, but is used on {path}."]
    return []


def lora_shapes(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """Return adapted module -> [out, in], from the names and shapes of its two factors A [r, in] and B [out, r]."""
    factors: dict[str, dict[str, int]] = {}
    for name, header in headers(checkpoint.files["adapter_model.safetensors"]).items():
        shape = header.shape
        if len(shape) == 2 and (match := _LORA.fullmatch(name)):
            factors.setdefault(match["module"], {})[match["side"]] = shape[1] if match["side"] == "A" else shape[0]
    return {module: [sides["B"], sides["A"]] for module, sides in factors.items() if len(sides) == 2}


def _place(module: str) -> tuple[str, str]:
    parts = module.split(".")
    return next((part for part in parts if part.isdigit()), ""), parts[-1]


def _sorted(value: Any) -> Any:
    """Return a setting with the order taken from lists of names, which PEFT writes from sets."""
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def read_settings(file: Path) -> Any:
    """Return the content of a JSON file.

    :raises NodeError: when it cannot be read
    """
    try:
        return read_json(file)
    except (OSError, ValueError) as error:
        raise NodeError(f"{file} cannot be read as JSON: {error}") from error
