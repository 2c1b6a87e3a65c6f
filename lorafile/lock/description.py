"""What a checkpoint's own classes say of it, asked of the engine in a process of its own, and kept for the next time.

A plan imports no torch. What the engine found depends on the checkpoint's config, on the names and shapes of its
tensors, on its code and on the libraries alone; it is kept in the user's cache directory by these.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorafile.errors import ModelError, NodeError, install_command
from lorafile.files.atomic import write_text
from lorafile.files.digests import json_digest
from lorafile.files.jsonl import read_json
from lorafile.files.tasks import task
from lorafile.files.user_cache import cache_directory
from lorafile.lock.weights import Header
from lorafile.specs.snapshot import is_encoder, model_types
from lorafile.specs.tables.settings import ModelTable
from lorafile.units import listing

_PATIENCE = 600.0  # seconds; a checkpoint of hundreds of gigabytes is read once
_FORMAT = 4  # of what is kept
_RESCALE = 6  # blocks; transformers' default of an RWKV, which config.json leaves out
_LIBRARIES = ("torch", "transformers", "peft")


def check_type(settings: Mapping[str, Any], table: ModelTable) -> None:
    """Refuse what config.json alone says can be neither a causal language model nor a classifier.

    A model with code of its own, and a type that is newer than this list, are left to the engine.

    :raises ModelError: naming what would work
    """
    kind, types = str(settings.get("model_type")), model_types()
    classifies = table.task_type == "SEQ_CLS"
    if settings.get("is_encoder_decoder"):
        raise ModelError(
            f"model.path: {table.path} is an encoder-decoder model ({kind}), which reads one text and writes another. "
            "Lorafile trains decoders, which continue a text, and classifiers. Use a decoder, or an encoder with "
            'task_type = "SEQ_CLS".'
        )
    if kind not in types["known"] or settings.get("auto_map"):
        return
    if kind == "rwkv" and settings.get("rescale_every", _RESCALE) > 0:
        raise ModelError(
            f"model.path: {table.path} (rwkv) rescales some of its own weights when it predicts, but an adapter on "
            "them would not be rescaled. Set rescale_every = 0 in its config.json; only float16 needs rescaling."
        )
    if not classifies and is_encoder(settings):
        raise ModelError(
            f"model.path: {table.path} is an encoder ({kind}): each token attends to those that follow, so it cannot "
            'be trained to generate text. To classify with it, set model.task_type = "SEQ_CLS"; to generate, use a '
            "decoder."
        )
    if kind not in types["classification" if classifies else "causal"]:
        able = "classification" if kind in types["classification"] and not classifies else ""
        able = able or ("causal" if kind in types["causal"] and classifies else "")
        other = {
            "classification": ' It can classify: model.task_type = "SEQ_CLS".',
            "causal": ' It can generate: model.task_type = "CAUSAL_LM".',
            "": " Use a text model; for a vision-language model, use its text part if published separately.",
        }[able]
        what = "sequence classifier" if classifies else "causal language model"
        raise ModelError(f"model.path: {table.path}: transformers has no {what} of type {kind}.{other}")


def describe_model(
    directory: Path, table: ModelTable, contents: Mapping[str, Any], tensors: Mapping[str, Header]
) -> dict[str, Any]:
    """Return what the engine says of a checkpoint: the fields of `engine.model.description.Description`.

    :param contents: what the lock says of its files: digests of `config`, which covers its own code, and `tokenizer`
    :raises ModelError: when tensors are missing, left over or of another shape, when transformers does not know the
        model, or when the libraries that have its classes are not installed here
    """
    if not can_describe():
        raise ModelError(
            f"model.path: {table.path} has changed since the lock, and reading its layers needs transformers, which is "
            f"not installed here. Install it with {install_command()}, or run lora lock where it is installed."
        )
    shapes = sorted((name, header.dtype, header.shape) for name, header in tensors.items())
    task = [table.task_type, table.trust_remote_code, contents["config"], contents["tokenizer"], contents["settings"]]
    asked = [_FORMAT, [_version(name) for name in _LIBRARIES], task, shapes]
    kept = cache_directory("models") / f"{json_digest(asked, sort_keys=True)}.json"
    found = _read(kept)
    if found is None:
        found = _ask(directory, table)
        if "problem" not in found:
            _keep(kept, found)
    _check(found, directory)
    return found


def can_describe() -> bool:
    """Return whether the libraries that have models' classes are installed here."""
    return all(find_spec(name) is not None for name in _LIBRARIES)


def _ask(directory: Path, table: ModelTable) -> dict[str, Any]:
    request = {"path": str(directory), "task_type": table.task_type, "trust_remote_code": table.trust_remote_code}
    command = [sys.executable, "-P", "-m", "lorafile.engine.model.description"]
    try:
        with task(f"Reading the layers of {table.path}"):
            done = subprocess.run(  # noqa: S603
                command, input=json.dumps(request), capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        found: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise NodeError(f"model.path: {directory} could not be read in {_PATIENCE:g} s.") from None
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise NodeError(f"model.path: {directory} could not be read: {last[:300]}") from None
    return found


def _check(found: dict[str, Any], directory: Path) -> None:
    """Refuse a checkpoint that transformers would complete with random weights, or take a part of."""
    if "problem" in found:
        library = f"transformers {found['transformers']}"
        raise ModelError(f"model.path: {library} cannot read {directory}: {found['problem']}")
    what = f"model.path: the weights in {directory} do not match a {found['architecture']}"
    for field, words in (
        ("missing", "missing, and therefore random: {}"),
        ("mismatched", "with shapes other than in config.json: {}"),
        ("unexpected", "not part of the model in config.json: {}"),
    ):
        if found[field]:
            raise ModelError(f"{what}: {words.format(listing(found[field], 3))}. Is the download complete?")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _read(file: Path) -> dict[str, Any] | None:
    """Return what was kept; what is damaged is asked for again."""
    try:
        found = read_json(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "modules" in found else None


def _keep(file: Path, found: dict[str, Any]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(found))
    except OSError:
        return  # a home that cannot be written costs a few seconds each time
