"""One run of a pack: everything of a run but the forward pass, which the runs share."""

import math
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.batches import Batch, collate, split_micro_batches
from lorafile.engine.batching.tokens import Units
from lorafile.engine.model.adapters import trained_adapter
from lorafile.engine.model.base import Base
from lorafile.engine.nodes.train import finish, step_batches, total_steps
from lorafile.engine.randomness import seeded
from lorafile.engine.request import Request, Result
from lorafile.engine.stacking.stack import Factors, Row, Stack
from lorafile.engine.training.checkpoint import RunState, generator_states, random_states, restore_generators
from lorafile.engine.training.curve import Curve
from lorafile.engine.training.optimizer import OptimizerStep
from lorafile.engine.training.recorder import RunRecorder

Place = tuple[str, int]  # a module's path, and 0 for A or 1 for B


class Member:
    """One run of a pack, and where it stands in the stack.

    :ivar share: seconds of the pack's time that were its own: those of a step are divided among all who took it
    :ivar trouble: why it diverged
    """

    def __init__(
        self,
        base: Base,
        request: Request,
        out: Path,
        recorder: RunRecorder,
        tokens: Units,
        factors: Factors,
        frozen: list[int],
    ) -> None:
        self.base, self.request, self.out, self.recorder, self.tokens = base, request, out, recorder, tokens
        self.factors, self._frozen, self.settings = factors, frozen, request.settings["training"]
        self.curve, self.share, self.trouble, self._began = Curve(), 0.0, "", time.monotonic()
        self.steps = total_steps(len(tokens), self.settings)
        with seeded(request.settings["seed"], "training"):
            self._random, self._python = random_states()
        recorder.clock = lambda: self.share

    def join(self, stack: Stack, number: int) -> None:
        """Take a place in a stack that was made with this run's matrices."""
        self._stack, self._number = stack, number
        row = stack.row(number)
        self.optimizer_step = OptimizerStep(row, self.settings, self.steps, self.base.device)
        self._moments = Moments(stack, number, row, self.optimizer_step.optimizer)

    def begin(self) -> None:
        """Begin, or go on from a checkpoint."""
        done = self.recorder.begin(self, self.curve, self.steps)
        seed = self.request.settings["seed"]
        self._batches = islice(step_batches(self.tokens, self.settings, seed), done, self.steps)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return bool(self.trouble) or len(self.curve.rows) >= self.steps

    def batches(self) -> list[Batch]:
        """Return the micro-batches of the next step, not yet on the device."""
        self._epoch, group = next(self._batches)
        cut = split_micro_batches(group, self.settings["per_device_train_batch_size"], self.recorder.parts)
        padding = self.base.padding
        return [collate(self.tokens, indexes, padding, torch.device("cpu")) for indexes in cut]

    def step(self) -> torch.Tensor:
        """Take an optimizer step with the gradients at hand; return their norm."""
        self._rate = self.optimizer_step.rate
        return self.optimizer_step.step()

    def note(self, loss: float, norm: float) -> None:
        """Note a step, and whether training diverged."""
        self.curve.add(self._epoch, loss, self._rate, norm)
        dtype = self.request.settings["model"]["dtype"]
        self.trouble = self.curve.diverged(math.log(self.base.choices), self.settings, dtype)

    def finished(self, more: dict[str, Any]) -> Result:
        """Write the result of the run, as a run alone does; the base has to be bare.

        :param more: figures next to those of every run
        """
        more = more | {"pack_seconds": time.monotonic() - self._began}
        with trained_adapter(self.base, self.request, self.steps, self._matrices()) as model:
            return finish(model, self.request, self.out, self.curve, self.recorder, self.trouble, more)

    def _matrices(self) -> dict[str, torch.Tensor]:
        """Return this run's matrices as they are now, under the names that they have in PEFT's model."""
        matrices = self._stack.cut(self._number, [flat.values[self._number] for flat in self._stack.flats])
        return {
            f"base_model.model.{path}.lora_{side}.default.weight": matrix
            for path, pair in matrices.items()
            for side, matrix in zip("AB", pair, strict=True)
        }

    def generators(self) -> list[torch.Generator]:
        """Return what this run's dropout is drawn from, in the order in which PEFT's model has them."""
        return list({id(generator): generator for generator in self.factors.generators.values()}.values())

    def state(self) -> RunState:
        """Return where the run is, as it would be saved if it were alone."""
        return RunState(
            tensors=self._matrices(),
            optimizer=self._moments.state_dict(),
            schedule=self.optimizer_step.schedule.state_dict(),
            scaler=self.optimizer_step.scaler.state_dict(),
            allocation={},
            random=self._random | generator_states(self.generators()),
            python=self._python,
            frozen=self._frozen,
        )

    def restore(self, state: RunState) -> None:
        """Continue from a state, whether the run was alone or not.

        :raises DamagedCheckpoint: when that is another run's state
        """
        state.copy_tensors(self._matrices(), self._frozen)
        self._moments.restore(state.optimizer)
        self.optimizer_step.schedule.load_state_dict(state.schedule)
        self.optimizer_step.scaler.load_state_dict(state.scaler)
        self._python = state.python
        self._random = {name: tensor for name, tensor in state.random.items() if not name.startswith("own")}
        restore_generators(self.generators(), state)


class Moments:
    """The optimizer of one adapter of a stack; the moments of its row, and those of its matrices."""

    def __init__(self, stack: Stack, number: int, row: Row, optimizer: torch.optim.Optimizer) -> None:
        self._stack, self._number, self._optimizer = stack, number, optimizer
        rows = [*row.lora_A, *row.lora_B]  # in the order of the stack's flat tensors
        places = {id(p): at for at, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
        self._index = [places[id(parameter)] for parameter in rows]
        # The matrices of each of the optimizer's groups, and the number of each among all of them.
        sides = {id(parameter): side for side, part in enumerate((row.lora_A, row.lora_B)) for parameter in part}
        order = [(path, side) for path in stack.paths(number) for side in (0, 1)]
        self._groups: list[list[Place]] = []
        for group in optimizer.param_groups:
            of_group = {sides[id(parameter)] for parameter in group["params"]}
            self._groups.append([place for place in order if place[1] in of_group])
        self._numbers = {place: at for at, place in enumerate(place for group in self._groups for place in group)}

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state with a parameter for each matrix, in the order of PEFT's model."""
        held, numbers = self._optimizer.state_dict(), self._numbers
        state: dict[int, dict[str, Any]] = {index: {} for index in numbers.values()} if held["state"] else {}
        rows = [held["state"].get(index, {}) for index in self._index]
        for word, first in rows[0].items():
            if first.ndim:
                cut = self._stack.cut(self._number, [row[word][0] for row in rows])
                for path, side in numbers:
                    state[numbers[path, side]][word] = cut[path][side]
            else:
                for values in state.values():
                    values[word] = first.clone()  # safetensors stores no tensor under two names
        groups = [
            {**group, "params": [numbers[place] for place in places]}
            for group, places in zip(held["param_groups"], self._groups, strict=True)
        ]
        return {"state": state, "param_groups": groups}

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over the state of an optimizer that had a parameter for each matrix."""
        held, numbers = self._optimizer.state_dict(), self._numbers
        state: dict[int, dict[str, Any]] = {index: {} for index in self._index} if saved["state"] else {}
        for word, first in next(iter(saved["state"].values()), {}).items():
            if not first.ndim:
                for values in state.values():
                    values[word] = first.clone()
                continue
            flat = [torch.zeros_like(all_of.values[self._number]) for all_of in self._stack.flats]
            given = {place: saved["state"][number][word] for place, number in numbers.items()}
            matrices = {path: (given[path, 0], given[path, 1]) for path, side in numbers if side == 0}
            self._stack.fill(self._number, flat, matrices)
            for index, whole in zip(self._index, flat, strict=True):
                state[index][word] = whole[None]
        groups = [
            {**stored, "params": current["params"]}
            for stored, current in zip(saved["param_groups"], held["param_groups"], strict=True)
        ]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
