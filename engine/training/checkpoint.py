"""Where a run is, on the disk, as tensors and JSON; nothing is pickled.

Written under names of its own, flushed, then named by `checkpoint.json`; read only after its digest, its key and the
libraries that made it were compared.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorafile.engine.model.fingerprint import parts, tensor_sums
from lorafile.engine.model.methods import allocation, restore_allocation
from lorafile.engine.randomness import dropout_generators
from lorafile.engine.training.optimizer import OptimizerStep
from lorafile.environment import device_class, installed
from lorafile.files.atomic import sync
from lorafile.files.digests import file_digest
from lorafile.files.run_directory import DamagedCheckpoint, read_manifest, write_manifest

FORMAT = 1  # raised when an older checkpoint could no longer be understood
_LIBRARIES = ("torch", "transformers", "peft")
_ADAPTER = ".default"  # what PEFT puts into the name of each tensor of an adapter


@dataclass(frozen=True)
class RunState:
    """Where a run is.

    :ivar own: what it changes, by name
    :ivar optimizer: as torch's optimizers tell it: `state` and `param_groups`, over those of `own` that train
    :ivar schedule: as the schedule tells it; `scaler` likewise
    :ivar allocation: what AdaLoRA knows of its ranks
    :ivar random: states of torch's generators: the processor's, each GPU's, and the run's own
    :ivar python: state of Python's generator
    :ivar frozen: sums over all weights that it leaves alone
    """

    own: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    allocation: dict[str, torch.Tensor]
    random: dict[str, torch.Tensor]
    python: Any
    frozen: list[int]

    def check(self, own: dict[str, torch.Tensor], frozen: list[int]) -> None:
        """Check that it is the state of a run that trains these tensors beside these frozen weights.

        :raises DamagedCheckpoint: when it is another's
        """
        if {name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in self.own.items()}:
            raise DamagedCheckpoint("it holds other tensors than this run trains")
        # Some initialisations rewrite the base: what is not restored has to be what it was.
        if frozen != self.frozen:
            raise DamagedCheckpoint("the frozen weights came out otherwise this time")


def capture(model: Any, descent: OptimizerStep) -> RunState:
    """Return where a run is; its tensors are shared and not copied."""
    states, python = random_states()
    states |= {f"own{number}": one.get_state() for number, one in enumerate(dropout_generators(model))}
    return RunState(
        own={name: tensor.detach() for name, tensor in _own(model)},
        optimizer=descent.optimizer.state_dict(),
        schedule=descent.schedule.state_dict(),
        scaler=descent.scaler.state_dict(),
        allocation=allocation(model),
        random=states,
        python=python,
        frozen=frozen_sums(model),
    )


def restore(state: RunState, model: Any, descent: OptimizerStep) -> None:
    """Put a run where a state says.

    :raises DamagedCheckpoint: when the state is another run's; this one is then as it was
    """
    own = dict(_own(model))
    state.check(own, frozen_sums(model))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state.own[name])
    descent.optimizer.load_state_dict(_laid_out(descent.optimizer, state.optimizer))
    restore_allocation(model, state.allocation)
    descent.schedule.load_state_dict(state.schedule)
    descent.scaler.load_state_dict(state.scaler)
    random.setstate(state.python)
    torch.set_rng_state(state.random["cpu"])
    for number in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        torch.cuda.set_rng_state(state.random[f"cuda{number}"], number)
    for number, generator in enumerate(dropout_generators(model)):
        generator.set_state(state.random[f"own{number}"])


def _laid_out(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state with each tensor laid out as its parameter is, which fused steps rely on."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {
            word: torch.empty_like(parameters[index], dtype=value.dtype, device="cpu").copy_(value)
            if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
            else value
            for word, value in values.items()
        }
        for index, values in saved["state"].items()
    }
    return {**saved, "state": state}


def random_states() -> tuple[dict[str, torch.Tensor], Any]:
    """Return the states of torch's global generators, and that of Python's."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states |= {f"cuda{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return states, random.getstate()


def frozen_sums(model: Any) -> list[int]:
    """Return two sums over each weight that a run leaves alone."""
    own = {name for name, _ in _own(model)}
    frozen = (parameter for name, parameter in model.named_parameters() if name not in own)
    return list(tensor_sums(part for parameter in frozen for part in parts(parameter)))


def _own(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a run changes: the trainable parameters, and whatever else belongs to its adapter."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or _ADAPTER in name:
            yield name, parameter
    for name, buffer in model.named_buffers():
        if _ADAPTER in name:
            yield name, buffer


class Trained(Protocol):
    """A run that can tell where it is."""

    def state(self) -> RunState:
        """Return where it is."""

    def restore(self, state: RunState) -> None:
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
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        digest = file_digest(temporary)
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
    if not file.is_file() or file_digest(file) != about["digest"]:
        raise DamagedCheckpoint(f"{file.name} is missing or damaged")
    trained.restore(_unpacked(load_file(file), about["state"]))
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
