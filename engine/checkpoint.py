"""Everything that a run needs to go on from a step as if it had never stopped, as tensors and JSON; nothing is pickled.

Written under names of its own, flushed, then named by `checkpoint.json`; read only after its digest, its key and the
libraries that made it were compared.
"""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorafile.engine.environment import device_class, installed
from lorafile.engine.fingerprint import parts, tensor_sums
from lorafile.engine.methods import allocation, restore_allocation
from lorafile.engine.randomness import dropout_generators
from lorafile.engine.running import Damaged, read_manifest, sync_directory, write_manifest

FORMAT = 1  # raised when an older checkpoint could no longer be understood
_LIBRARIES = ("torch", "transformers", "peft")
_ADAPTER = ".default"  # what PEFT puts into the name of each tensor of an adapter


class Trained(Protocol):
    """What takes optimizer steps: the state of all four is kept."""

    model: Any
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: torch.amp.GradScaler


def made_with() -> dict[str, str | None]:
    """Return what a checkpoint may not cross: another device, or other versions of what computes."""
    return {"device": device_class(), **{name: installed(name) for name in _LIBRARIES}}


def save(directory: Path, trained: Trained, about: dict[str, Any]) -> None:
    """Write a checkpoint; the one before is removed when this one is complete.

    :param about: `key`, `step`, `reads`, and whatever else the run wants back
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"step-{about['step']}.safetensors"
    tensors, plain = _state(trained)
    temporary = file.with_suffix(".new")
    try:
        save_file(tensors, temporary)
        digest = _flushed_digest(temporary)
        temporary.replace(file)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(directory)
    about = {**about, "format": FORMAT, "file": file.name, "digest": digest, "made_with": made_with(), "state": plain}
    write_manifest(directory, about)
    for old in directory.glob("step-*"):
        if old != file:
            old.unlink()


def load(directory: Path, trained: Trained, key: str, reads: str) -> dict[str, Any]:
    """Put a run where its checkpoint left it and return what the run had written beside it.

    :param reads: digest of the examples that are trained on
    :raises Damaged: when it is not this run's, not whole, or made elsewhere; the run is then as it was
    """
    about = read_manifest(directory)
    if about.get("format") != FORMAT:
        raise Damaged("another version of lorafile wrote it")
    if about.get("key") != key or about.get("reads") != reads:
        raise Damaged("it belongs to another run, or to other examples")
    then, now = about.get("made_with", {}), made_with()
    moved = [f"{name} {then.get(name)} is now {now[name]}" for name in now if then.get(name) != now[name]]
    if moved:
        raise Damaged(f"it was made elsewhere: {', '.join(moved)}")
    file = directory / Path(about["file"]).name
    if not file.is_file() or _digest(file) != about["digest"]:
        raise Damaged(f"{file.name} is missing or damaged")
    _restore(trained, load_file(file), about["state"])
    return about


def _state(trained: Trained) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a run under names, and what of it is no tensor."""
    tensors = {f"model.{name}": tensor.detach() for name, tensor in _own(trained.model)}
    optimizer = trained.optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, state in optimizer["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers.setdefault(str(index), {})[name] = value
    tensors |= {f"allocation.{name}": value for name, value in allocation(trained.model).items()}
    tensors |= {f"random.{name}": state for name, state in _random_states(trained.model).items()}
    plain = {
        "groups": optimizer["param_groups"],
        "numbers": numbers,
        "schedule": trained.schedule.state_dict(),
        "scaler": trained.scaler.state_dict(),
        "python": random.getstate(),
        "frozen": _frozen_sums(trained.model),
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, plain


def _restore(trained: Trained, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> None:
    own = dict(_own(trained.model))
    saved = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    if {name: tensor.shape for name, tensor in own.items()} != {name: tensor.shape for name, tensor in saved.items()}:
        raise Damaged("it holds other tensors than this run trains")
    # Some initialisations rewrite the base: what is not restored has to be what it was.
    if plain["frozen"] != _frozen_sums(trained.model):
        raise Damaged("the frozen weights came out otherwise this time")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])
    trained.optimizer.load_state_dict(_optimizer_state(trained, tensors, plain))
    known = {
        name.removeprefix("allocation."): value for name, value in tensors.items() if name.startswith("allocation.")
    }
    restore_allocation(trained.model, known)
    trained.schedule.load_state_dict(plain["schedule"])
    trained.scaler.load_state_dict(plain["scaler"])
    version, words, gauss = plain["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(tensors["random.cpu"])
    for number in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        torch.cuda.set_rng_state(tensors[f"random.cuda{number}"], number)
    for number, generator in enumerate(dropout_generators(trained.model)):
        generator.set_state(tensors[f"random.own{number}"])


def _optimizer_state(trained: Trained, tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    parameters = [parameter for group in trained.optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in plain["numbers"].items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, word = name.split(".", 2)
            like = parameters[int(index)]
            if tensor.shape == like.shape:  # laid out as the parameter is, which fused steps rely on
                tensor = torch.empty_like(like, dtype=tensor.dtype, device="cpu").copy_(tensor)
            state.setdefault(int(index), {})[word] = tensor
    groups = [{**group, "betas": tuple(group["betas"])} for group in plain["groups"]]
    return {"state": state, "param_groups": groups}


def _own(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a run changes: the trainable parameters, and whatever else belongs to its adapter."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or _ADAPTER in name:
            yield name, parameter
    for name, buffer in model.named_buffers():
        if _ADAPTER in name:
            yield name, buffer


def _frozen_sums(model: Any) -> list[int]:
    own = {name for name, _ in _own(model)}
    frozen = (parameter for name, parameter in model.named_parameters() if name not in own)
    return list(tensor_sums(part for parameter in frozen for part in parts(parameter)))


def _random_states(model: Any) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states |= {f"cuda{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return states | {
        f"own{number}": generator.get_state() for number, generator in enumerate(dropout_generators(model))
    }


def _flushed_digest(file: Path) -> str:
    """Return the digest of a file whose bytes are on the disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
    return _digest(file)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
