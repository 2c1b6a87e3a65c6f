"""Checkpoints: the state of a run on the disk, as tensors and JSON; nothing is pickled.

Written under names of its own, flushed, then named by `checkpoint.json`; read only after its digest, its key and the
libraries that made it were compared.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorafile.engine.model.adapters import changed_tensors
from lorafile.engine.model.fingerprint import parts, tensor_sums
from lorafile.engine.model.methods import allocation, restore_allocation
from lorafile.engine.randomness import dropout_generators
from lorafile.engine.training.optimizer import OptimizerStep
from lorafile.engine.training.validation import Validation
from lorafile.environment import device_class, installed
from lorafile.files.atomic import sync
from lorafile.files.digests import file_digest
from lorafile.files.run_directory import DamagedCheckpoint, read_manifest, write_manifest
from lorafile.specs.optimizers import OPTIMIZERS

FORMAT = 1  # raised when an older checkpoint could no longer be understood
_LIBRARIES = ("torch", "transformers", "peft")
_OF_OPTIMIZERS = tuple(sorted({row.package for row in OPTIMIZERS.values() if row.package}))


@dataclass(frozen=True)
class RunState:
    """The state of a run between two steps.

    :ivar tensors: name -> what the run changes
    :ivar optimizer: `state` and `param_groups`, as the `state_dict` of torch's own optimizers has them
    :ivar schedule: its `state_dict`; `scaler` likewise
    :ivar allocation: what AdaLoRA knows of its ranks
    :ivar random: states of torch's generators: the processor's, each GPU's, and the run's own
    :ivar python: state of Python's generator
    :ivar frozen: sums over all weights that the run leaves alone
    :ivar validation: where the evaluations of the run are, if it has any; `best`: the tensors of its best step
    """

    tensors: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    allocation: dict[str, torch.Tensor]
    random: dict[str, torch.Tensor]
    python: Any
    frozen: list[int]
    validation: dict[str, Any] = field(default_factory=dict)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    def copy_tensors(self, tensors: dict[str, torch.Tensor], frozen: list[int]) -> None:
        """Copy the state's tensors into those of a run, once it is clear that they are this run's.

        :raises DamagedCheckpoint: when the run trains other tensors, or next to other frozen weights
        """
        if {name: tensor.shape for name, tensor in tensors.items()} != {n: t.shape for n, t in self.tensors.items()}:
            raise DamagedCheckpoint("its tensors differ from those this run trains")
        # Some initialisations rewrite the base: what is not restored has to be what it was.
        if frozen != self.frozen:
            raise DamagedCheckpoint("the frozen weights differ this time")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(self.tensors[name])


class Resumable(Protocol):
    """A run that can be continued from a checkpoint."""

    def state(self) -> RunState:
        """Return its state; the tensors are shared and not copied."""

    def restore(self, state: RunState) -> None:
        """Continue from a state.

        :raises DamagedCheckpoint: when the state is another run's; this one is then as it was
        """


class ResumableModel:
    """A run that has the model to itself; where it is evaluated while it trains, with its validation."""

    def __init__(self, model: Any, optimizer_step: OptimizerStep, validation: Validation | None = None) -> None:
        self.model, self.optimizer_step, self.validation = model, optimizer_step, validation

    def state(self) -> RunState:
        """Return the run's state; its tensors are shared and not copied."""
        states, python = random_states()
        validation, best = self.validation.state() if self.validation else ({}, {})
        return RunState(
            tensors={name: tensor.detach() for name, tensor in changed_tensors(self.model)},
            optimizer=self.optimizer_step.optimizer_state(),
            schedule=self.optimizer_step.schedule.state_dict(),
            scaler=self.optimizer_step.scaler.state_dict(),
            allocation=allocation(self.model),
            random=states | generator_states(dropout_generators(self.model)),
            python=python,
            frozen=frozen_sums(self.model),
            validation=validation,
            best=best,
        )

    def restore(self, state: RunState) -> None:
        """Continue from a state.

        :raises DamagedCheckpoint: when the state is another run's; this one is then as it was
        """
        state.copy_tensors(dict(changed_tensors(self.model)), frozen_sums(self.model))
        self.optimizer_step.restore_optimizer(state.optimizer)
        restore_allocation(self.model, state.allocation)
        self.optimizer_step.schedule.load_state_dict(state.schedule)
        self.optimizer_step.scaler.load_state_dict(state.scaler)
        random.setstate(state.python)
        torch.set_rng_state(state.random["cpu"])
        for number in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
            torch.cuda.set_rng_state(state.random[f"cuda{number}"], number)
        restore_generators(dropout_generators(self.model), state)
        if self.validation and state.validation:
            self.validation.restore(state.validation, state.best)


def random_states() -> tuple[dict[str, torch.Tensor], Any]:
    """Return the states of torch's global generators, and that of Python's."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states |= {f"cuda{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return states, random.getstate()


def generator_states(generators: list[torch.Generator]) -> dict[str, torch.Tensor]:
    """Return the states of a run's own generators, by the names that a checkpoint has for them."""
    return {f"own{number}": generator.get_state() for number, generator in enumerate(generators)}


def restore_generators(generators: list[torch.Generator], state: RunState) -> None:
    """Set a run's own generators to a state."""
    for number, generator in enumerate(generators):
        generator.set_state(state.random[f"own{number}"])


def frozen_sums(model: Any) -> list[int]:
    """Return two sums over each weight that a run leaves alone."""
    changed = {name for name, _ in changed_tensors(model)}
    frozen = (parameter for name, parameter in model.named_parameters() if name not in changed)
    return list(tensor_sums(part for parameter in frozen for part in parts(parameter)))


def made_with() -> dict[str, str | None]:
    """Return what a checkpoint may not cross: another device, or other versions of what computes."""
    return {"device": device_class(), **{name: installed(name) for name in (*_LIBRARIES, *_OF_OPTIMIZERS)}}


def save(directory: Path, run: Resumable, about: dict[str, Any]) -> None:
    """Write a checkpoint; the one before is removed when this one is complete.

    :param about: `key`, `step`, `reads`, and whatever else the run wants back
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"step-{about['step']}.safetensors"
    tensors, plain = _packed(run.state())
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


def load(directory: Path, run: Resumable, key: str, reads: str) -> dict[str, Any]:
    """Continue a run from its checkpoint; return what the run had written there next to its state.

    :param reads: digest of the examples that are trained on
    :raises DamagedCheckpoint: when it is not this run's, not whole, or made elsewhere; the run is then as it was
    """
    about = read_manifest(directory)
    if about.get("format") != FORMAT:
        raise DamagedCheckpoint("another version of lorafile wrote it")
    if about.get("key") != key or about.get("reads") != reads:
        raise DamagedCheckpoint("it belongs to another run or to other examples")
    then, now = about.get("made_with", {}), made_with()
    compared = [name for name in now if name in then or name not in _OF_OPTIMIZERS]  # earlier versions noted fewer
    changed = [f"{name} {then.get(name)} is now {now[name]}" for name in compared if then.get(name) != now[name]]
    if changed:
        raise DamagedCheckpoint(f"it was made elsewhere: {', '.join(changed)}")
    file = directory / Path(about["file"]).name
    if not file.is_file() or file_digest(file) != about["digest"]:
        raise DamagedCheckpoint(f"{file.name} is missing or damaged")
    run.restore(_unpacked(load_file(file), about["state"]))
    return about


def _packed(state: RunState) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a state by name, and the rest of it as JSON has it."""
    tensors = {f"model.{name}": tensor for name, tensor in state.tensors.items()}
    numbers: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for number, (key, values) in enumerate(state.optimizer["state"].items()):
        index = str(key) if isinstance(key, int) else str(number)
        names |= {} if isinstance(key, int) else {index: key}
        for name, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                numbers.setdefault(index, {})[name] = value
    tensors |= {f"allocation.{name}": value for name, value in state.allocation.items()}
    tensors |= {f"random.{name}": value for name, value in state.random.items()}
    tensors |= {f"best.{name}": value for name, value in state.best.items()}
    plain = {
        "groups": state.optimizer["param_groups"],
        "numbers": numbers,
        **({"names": names} if names else {}),
        **{name: getattr(state, name) for name in ("schedule", "scaler", "python", "frozen", "validation")},
    }
    return _unshared(tensors), plain


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors as safetensors stores them: whole, and none under two names, as the maps of 8-bit states are."""
    seen: set[int] = set()
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        shared = name.startswith("optimizer.") and tensor.data_ptr() in seen
        stored[name] = tensor.clone() if shared else tensor.contiguous()
        seen.add(tensor.data_ptr())
    return stored


def _unpacked(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> RunState:
    kinds: dict[str, dict[str, torch.Tensor]] = {
        "model": {},
        "optimizer": {},
        "allocation": {},
        "random": {},
        "best": {},
    }
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        kinds[kind][rest] = tensor
    names = plain.get("names", {})  # of what an optimizer does not keep by parameter
    moments: dict[int | str, dict[str, Any]] = {}
    for index, values in plain["numbers"].items():
        moments.setdefault(names.get(index) or int(index), {}).update(values)
    for name, tensor in kinds["optimizer"].items():
        index, _, word = name.partition(".")
        moments.setdefault(names.get(index) or int(index), {})[word] = tensor
    version, words, gauss = plain["python"]
    return RunState(
        tensors=kinds["model"],
        optimizer={
            "state": moments,
            "param_groups": [_as_made(group) for group in plain["groups"]],
        },
        schedule=plain["schedule"],
        scaler=plain["scaler"],
        allocation=kinds["allocation"],
        random=kinds["random"],
        python=(version, tuple(words), gauss),
        frozen=plain["frozen"],
        validation=plain.get("validation", {}),  # which an older checkpoint has not
        best=kinds["best"],
    )


def _as_made(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group of parameters with the tuples that JSON has as lists."""
    tuples = {name: tuple(value) for name, value in group.items() if isinstance(value, list) and name != "params"}
    return group | tuples
