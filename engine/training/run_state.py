"""Everything that a run needs to go on from a step as if it had never stopped, taken from it and put back."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lorafile.engine.model.fingerprint import parts, tensor_sums
from lorafile.engine.model.methods import allocation, restore_allocation
from lorafile.engine.randomness import dropout_generators
from lorafile.engine.training.optimizer import Descent
from lorafile.files.run_directory import DamagedCheckpoint

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


def state_of(model: Any, descent: Descent) -> RunState:
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


def put_back(state: RunState, model: Any, descent: Descent) -> None:
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
