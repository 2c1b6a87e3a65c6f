"""What a lock would say of a model whose weights are not here, from its config.json: enough to estimate memory."""

import json
from math import prod
from pathlib import Path
from typing import Any

from lorafile.engine.data.hub import cached_snapshot, snapshot
from lorafile.engine.data.sources import find_model
from lorafile.errors import NodeError
from lorafile.files.digests import json_digest
from lorafile.lock.description import describe_model
from lorafile.specs.tables.settings import ModelTable

UNKNOWN = ""  # the digest of weights that are not here yet
_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def has_weights(directory: Path) -> bool:
    """Return whether a model's directory holds any weight file that can be read."""
    return any(file.is_file() for file in directory.glob("*.safetensors"))


def no_weights(directory: Path) -> str:
    """Say that a model's directory has no weights, and what can be done."""
    pickled = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
    if pickled:
        why = f"{pickled[0]} is not loaded, because it can run code"
        return f"model.path: {directory} holds no .safetensors weights; {why}. Convert it with transformers."
    return (
        f"model.path: {directory} holds config.json but no weights (*.safetensors). Download them. To see without "
        "them whether the model fits, run: lora plan --gpu 24GB"
    )


def config_directory(table: ModelTable, base: Path, remote: bool) -> Path | None:
    """Return the directory of a model whose weights are not here, with its config.json; None where they are.

    :param remote: it is a hub id, of which only the small files are downloaded
    """
    if not remote:
        directory = find_model(table.path, table.revision, base)
    else:
        cached = cached_snapshot(table.path, "model") if table.revision is None else None
        directory = cached or snapshot(table.path, "model", table.revision, weights=False)
    return None if has_weights(directory) else directory


def named_dtype(settings: dict[str, Any]) -> Any:
    """Return the type that a config.json names, by its new or its old name."""
    return settings.get("dtype") or settings.get("torch_dtype")


def describe_unlocked(directory: Path, table: ModelTable, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what config.json decides of a model without weights: fields of its lock entry, and its description.

    :param settings: config.json
    :raises NodeError: when config.json is not enough, because the size of packed weights is that of their files
    """
    if settings.get("quantization_config"):
        raise NodeError(
            f"model.path: {directory} is a quantized checkpoint, so its memory follows from its weight files, which "
            "are missing. Download them, or use the model it was made from."
        )
    named = named_dtype(settings)
    contents: dict[str, Any] = {
        "revision": None,
        "weights": UNKNOWN,
        "config": json_digest(["unlocked", json.dumps(settings, sort_keys=True)]),
        "tokenizer": "",
        "dtype": named if named in _WIDTHS else "float32",
        "settings": settings,
    }
    described = describe_model(directory, table, contents, {})
    shapes = [*described["modules"].values(), *described["experts"].values(), *described["tensors"].values()]
    count = sum(map(prod, shapes))
    return {"described": described, **contents, "parameters": count, "bytes": count * _WIDTHS[contents["dtype"]]}
