"""Where a run is, on the disk, as tensors and JSON; nothing is pickled.

Written under names of its own, flushed, then named by `checkpoint.json`; read only after its digest, its key and the
libraries that made it were compared.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorafile.engine.training.run_state import RunState
from lorafile.environment import device_class, installed
from lorafile.files.atomic import sync
from lorafile.files.run_directory import DamagedCheckpoint, read_manifest, write_manifest

FORMAT = 1  # raised when an older checkpoint could no longer be understood
_LIBRARIES = ("torch", "transformers", "peft")


class Trained(Protocol):
    """A run that can tell where it is."""

    def state(self) -> RunState:
        """Return where it is."""

    def put_back(self, state: RunState) -> None:
        """Go on from there.

        :raises DamagedCheckpoint: when that is another run's state; it is then as it was
        """


def made_with() -> dict[str, str | None]:
    """Return what a checkpoint may not cross: another device, or other versions of what computes."""
    return {"device": device_class(), **{name: installed(name) for name in _LIBRARIES}}


def save(directory: Path, trained: Trained, about: dict[str, Any]) -> None:
    """Write a checkpoint; the one before is removed when this one is complete.

    :param about: `key`, `step`, `reads`, and whatever else the run wants back
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"step-{about['step']}.safetensors"
    tensors, plain = _packed(trained.state())
    temporary = file.with_suffix(".new")
    try:
        save_file(tensors, temporary)
        digest = _flushed_digest(temporary)
        temporary.replace(file)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync(directory)
    about = {**about, "format": FORMAT, "file": file.name, "digest": digest, "made_with": made_with(), "state": plain}
    write_manifest(directory, about)
    for old in directory.glob("step-*"):
        if old != file:
            old.unlink()


def load(directory: Path, trained: Trained, key: str, reads: str) -> dict[str, Any]:
    """Put a run where its checkpoint left it and return what the run had written beside it.

    :param reads: digest of the examples that are trained on
    :raises DamagedCheckpoint: when it is not this run's, not whole, or made elsewhere; the run is then as it was
    """
    about = read_manifest(directory)
    if about.get("format") != FORMAT:
        raise DamagedCheckpoint("another version of lorafile wrote it")
    if about.get("key") != key or about.get("reads") != reads:
        raise DamagedCheckpoint("it belongs to another run, or to other examples")
    then, now = about.get("made_with", {}), made_with()
    moved = [f"{name} {then.get(name)} is now {now[name]}" for name in now if then.get(name) != now[name]]
    if moved:
        raise DamagedCheckpoint(f"it was made elsewhere: {', '.join(moved)}")
    file = directory / Path(about["file"]).name
    if not file.is_file() or _digest(file) != about["digest"]:
        raise DamagedCheckpoint(f"{file.name} is missing or damaged")
    trained.put_back(_unpacked(load_file(file), about["state"]))
    return about


def _packed(state: RunState) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a state under names, and what of it is no tensor."""
    tensors = {f"model.{name}": tensor for name, tensor in state.own.items()}
    numbers: dict[str, dict[str, Any]] = {}
    for index, values in state.optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    tensors |= {f"allocation.{name}": value for name, value in state.allocation.items()}
    tensors |= {f"random.{name}": value for name, value in state.random.items()}
    plain = {
        "groups": state.optimizer["param_groups"],
        "numbers": numbers,
        "schedule": state.schedule,
        "scaler": state.scaler,
        "python": state.python,
        "frozen": state.frozen,
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, plain


def _unpacked(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> RunState:
    kinds: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimizer": {}, "allocation": {}, "random": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        kinds[kind][rest] = tensor
    moments: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain["numbers"].items()}
    for name, tensor in kinds["optimizer"].items():
        index, _, word = name.partition(".")
        moments.setdefault(int(index), {})[word] = tensor
    version, words, gauss = plain["python"]
    return RunState(
        own=kinds["model"],
        optimizer={
            "state": moments,
            "param_groups": [{**group, "betas": tuple(group["betas"])} for group in plain["groups"]],
        },
        schedule=plain["schedule"],
        scaler=plain["scaler"],
        allocation=kinds["allocation"],
        random=kinds["random"],
        python=(version, tuple(words), gauss),
        frozen=plain["frozen"],
    )


def _flushed_digest(file: Path) -> str:
    """Return the digest of a file whose bytes are on the disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
    return _digest(file)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
