"""One run among others that share a base: everything of it but the forward pass is its own."""

import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.batches import Batch, collate, smaller
from lorafile.engine.batching.blocks import Blocks
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.adapters import trained_adapter
from lorafile.engine.model.base import Base
from lorafile.engine.model.head import guesses
from lorafile.engine.nodes.train import finish, step_batches, total_steps
from lorafile.engine.packing.moments import Moments
from lorafile.engine.randomness import drawn_from
from lorafile.engine.request import Request, Result
from lorafile.engine.stacking.stack import Factors, Stack
from lorafile.engine.training.curve import Curve
from lorafile.engine.training.journal import Journal
from lorafile.engine.training.optimizer import Descent
from lorafile.engine.training.run_state import RunState, random_states


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
        kept: Journal,
        tokens: Tokens | Blocks,
        factors: Factors,
        frozen: list[int],
    ) -> None:
        self.base, self.request, self.out, self.kept, self.tokens = base, request, out, kept, tokens
        self.factors, self._frozen, self.settings = factors, frozen, request.settings["training"]
        self.curve, self.share, self.trouble, self._began = Curve(), 0.0, "", time.monotonic()
        self.steps = total_steps(len(tokens), self.settings)
        with drawn_from(request.settings["seed"], "training"):
            self._random, self._python = random_states()
        kept.clock = lambda: self.share

    def join(self, stack: Stack, number: int) -> None:
        """Take a place in a stack that was made with this run's matrices."""
        self._stack, self._number = stack, number
        row = stack.row(number)
        self.descent = Descent(row, self.settings, self.steps, self.base.device)
        self._moments = Moments(stack, number, row, self.descent.optimizer)

    def begin(self) -> None:
        """Begin, or go on from a checkpoint."""
        done = self.kept.begin(self, self.curve, self.steps)
        seed = self.request.settings["seed"]
        self._batches = islice(step_batches(self.tokens, self.settings, seed), done, self.steps)

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return bool(self.trouble) or len(self.curve.rows) >= self.steps

    def batches(self) -> list[Batch]:
        """Return the micro-batches of the next step, not yet on the device."""
        self._epoch, group = next(self._batches)
        cut = smaller(group, self.settings["per_device_train_batch_size"], self.kept.parts)
        padding = self.base.tokenizer.pad_token_id or 0
        return [collate(self.tokens, indexes, padding, torch.device("cpu")) for indexes in cut]

    def step(self) -> torch.Tensor:
        """Take an optimizer step with the gradients at hand; return their norm."""
        self._rate = self.descent.rate
        return self.descent.step()

    def note(self, loss: float, norm: float) -> None:
        """Note a step, and whether training diverged."""
        self.curve.add(self._epoch, loss, self._rate, norm)
        dtype = self.request.settings["model"]["dtype"]
        self.trouble = self.curve.diverged(guesses(self.base.model), self.settings, dtype)

    def finished(self, more: dict[str, Any]) -> Result:
        """Write what came of the run, as a run alone does; the base has to be bare.

        :param more: figures beside those of every run
        """
        more = more | {"pack_seconds": time.monotonic() - self._began}
        with trained_adapter(self.base, self.request, self.steps, self._own()) as model:
            return finish(model, self.request, self.out, self.curve, self.kept, self.trouble, more)

    def _own(self) -> dict[str, torch.Tensor]:
        """Return this run's matrices as they are now, under the names that they have in PEFT's model."""
        held = self._stack.cut(self._number, [flat.values[self._number] for flat in self._stack.flats])
        return {
            f"base_model.model.{path}.lora_{side}.default.weight": matrix
            for path, pair in held.items()
            for side, matrix in zip("AB", pair, strict=True)
        }

    def generators(self) -> list[torch.Generator]:
        """Return what this run's dropout is drawn from, in the order in which PEFT's model has them."""
        return list({id(one): one for one in self.factors.generators.values()}.values())

    def state(self) -> RunState:
        """Return where the run is, as it would be told if it were alone."""
        states = {f"own{number}": one.get_state() for number, one in enumerate(self.generators())}
        return RunState(
            own=self._own(),
            optimizer=self._moments.told(),
            schedule=self.descent.schedule.state_dict(),
            scaler=self.descent.scaler.state_dict(),
            allocation={},
            random=self._random | states,
            python=self._python,
            frozen=self._frozen,
        )

    def put_back(self, state: RunState) -> None:
        """Go on from there, whether it was alone or not.

        :raises DamagedCheckpoint: when that is another run's state
        """
        own = self._own()
        state.check(own, self._frozen)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state.own[name])
        self._moments.put_back(state.optimizer)
        self.descent.schedule.load_state_dict(state.schedule)
        self.descent.scaler.load_state_dict(state.scaler)
        self._python = state.python
        self._random = {name: tensor for name, tensor in state.random.items() if not name.startswith("own")}
        for number, generator in enumerate(self.generators()):
            generator.set_state(state.random[f"own{number}"])
