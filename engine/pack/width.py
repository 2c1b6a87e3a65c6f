"""How many adapters go together: memory first, then tokens a second, by real steps of throwaway adapters."""

import contextlib
import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from lorafile.engine.adapters import autocast, checkpointed, new_adapter
from lorafile.engine.base import Base, Bases
from lorafile.engine.batches import by_length, collate
from lorafile.engine.blocks import units
from lorafile.engine.clock import timed
from lorafile.engine.curve import Curve
from lorafile.engine.head import load_tokens
from lorafile.engine.loss import summed_loss
from lorafile.engine.memory import is_out_of_memory, reset_peak
from lorafile.engine.pack.stack import Factors, Stack, factors_of
from lorafile.engine.request import Report, Request, Stopped, Widths
from lorafile.engine.train import Stepper, make_optimizer, step_batches, total_steps

_TIMED = 2  # steps of each width, after one that warms up
_GAIN = 1.1  # what a doubling has to bring
_SHARE = 0.05  # of the work that it decides, at most, may the measurement take
_LONG = 0.25  # seconds of one step on a CPU: its cores are busy then, and a pack brings nothing
_FREE = 0.9  # of a GPU's memory
_Parts = list[list[int]]  # each adapter's examples in a step


@dataclass(frozen=True)
class Speed:
    """What was measured at one width: seconds of a step, and tokens a second."""

    seconds: float
    tokens: float


def measured(replicates: list[list[Request]], bases: Bases, report: Report) -> Widths:
    """Return how many of some replicates go together best; one by one where it cannot be told, or is not worth it.

    :raises Stopped: when the work is to end
    """
    trains = [request for one in replicates for request in one if request.kind == "train"]
    if len(trains) < 2:
        return Widths()
    try:
        with bases.proven(trains[0].settings, trains[0].paths) as base:
            training = _Training(base, trains, report)
            width, found = widest(training.speed, training.most, training.steps)
    except Stopped:
        raise
    except Exception as error:  # a run that fails says so itself, with an outcome of its own
        traceback.print_exc()
        return Widths(why=f"Adapters are trained one by one: how a pack does was not found out ({error}).")
    return Widths(width, width, _sentence(width, found))


def widest(speed: Callable[[int], Speed], most: Callable[[], int], steps: int) -> tuple[int, dict[int, Speed]]:
    """Return the width beyond which a doubling gains too little, and what was measured at 1, 2, 4, … until then.

    :param most: so many there are, or memory holds; asked again after each measurement
    :param steps: how many steps of one adapter the work has that this decides: little is not worth to be measured
    """
    each = 1 + _TIMED
    if 3 * each > _SHARE * steps:  # of one, and of two
        return 1, {}
    width, found, spent = 1, {1: speed(1)}, 0.0
    while (wider := min(2 * width, most())) > width:
        spent += each * found[width].seconds
        if spent + 2 * each * found[width].seconds > _SHARE * steps * found[1].seconds:
            break
        try:
            found[wider] = speed(wider)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if found[wider].tokens < _GAIN * found[width].tokens:
            break
        width = wider
    return width, found


def _sentence(width: int, found: dict[int, Speed]) -> str:
    if not found:
        return ""
    told = ", ".join(f"{one.tokens:,.0f} tokens/s with {number}" for number, one in found.items())
    lead = f"{width} adapters are trained at a time" if width > 1 else "Adapters are trained one by one"
    return f"{lead}, by a measurement of steps: {told}."


class _Training:
    """Steps on real examples, by adapters that are thrown away.

    :ivar steps: of all runs, one by one
    """

    def __init__(self, base: Base, requests: list[Request], report: Report) -> None:
        self._base, self._requests, self._report = base, requests, report
        self._documents = load_tokens(requests[0], "train")
        self._tokens = units(self._documents, base.model)[0]
        self.steps = sum(total_steps(len(self._tokens), request.settings["training"]) for request in requests)
        self._factors: dict[str, Factors] = {}
        self._peaks: dict[int, int] = {}
        self._first = 0.0

    def most(self) -> int:
        """Return how many adapters there are, or as many of them as memory holds or a processor has time for."""
        if self._base.device.type != "cuda":
            return 1 if self._first > _LONG else len(self._requests)
        if len(self._peaks) < 2:
            return len(self._requests)
        one, two = self._peaks[1], self._peaks[2]
        room = _FREE * (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) - one
        return min(len(self._requests), 1 + max(0, int(room / max(two - one, 1))))

    def speed(self, width: int) -> Speed:
        """Measure the peak of the longest step, and the time of ordinary ones.

        :raises Stopped: when the work is to end
        """
        self._report({})
        seconds, tokens = 0.0, 0
        lengths = self._tokens.lengths()
        orders = [self._order(request) for request in self._requests[:width]]
        with self._steps(self._requests[:width]) as step:
            reset_peak(self._base.device)
            step(self._longest(orders))
            if self._base.device.type == "cuda":
                self._peaks[width] = torch.cuda.max_memory_allocated()
            for parts in zip(*orders, strict=True):
                seconds += timed(self._base, lambda parts=parts: step(list(parts)))  # type: ignore[misc]
                tokens += sum(lengths[index] for part in parts for index in part)
        self._first = self._first or seconds / _TIMED
        return Speed(seconds / _TIMED, tokens / seconds)

    def _order(self, request: Request) -> _Parts:
        """Return some whole micro-batches of a run, as it would begin."""
        training = request.settings["training"]
        whole = min(training["per_device_train_batch_size"], len(self._tokens))
        batches = (
            part for _, group in step_batches(self._tokens, training, request.settings["seed"]) for part in group
        )
        return list(islice((part for part in batches if len(part) == whole), _TIMED))

    def _longest(self, orders: list[_Parts]) -> _Parts:
        """Return the step that needs most memory; where memory is not what limits, any."""
        if self._base.device.type != "cuda":
            return [order[0] for order in orders]
        return [by_length(self._tokens.lengths(), len(orders[0][0]))[0]] * len(orders)

    @contextlib.contextmanager
    def _steps(self, requests: list[Request]) -> Iterator[Callable[[_Parts], Any]]:
        """Yield what does one step: of a single adapter as it is trained alone, of several as a stack."""
        settings = requests[0].settings["training"]
        if len(requests) == 1:
            with (
                new_adapter(self._base, requests[0], self._documents, 1 + _TIMED) as model,
                checkpointed(model, settings["gradient_checkpointing"]),
            ):
                stepper = Stepper(self._base, model.train(), settings, 1 + _TIMED)
                yield lambda parts: stepper.step(self._tokens, parts, Curve())
            return
        model = self._base.model
        stack = Stack(model, [self._made(request) for request in requests], trained=True)
        optimizers = [make_optimizer(stack.row(at), one.settings["training"]) for at, one in enumerate(requests)]
        with stack.attached(), checkpointed(model.train(), settings["gradient_checkpointing"]):
            yield lambda parts: self._step(stack, optimizers, settings, parts)
        model.eval()

    def _step(
        self, stack: Stack, optimizers: list[torch.optim.Optimizer], settings: dict[str, Any], parts: _Parts
    ) -> None:
        """Do one step of a stack: one forward pass over all micro-batches, each adapter on its own rows."""
        lengths = self._tokens.lengths()
        stack.rows = [(len(part), max(lengths[index] for index in part)) for part in parts]
        every = [index for part in parts for index in part]
        batch = collate(self._tokens, every, self._base.tokenizer.pad_token_id or 0, self._base.device)
        with autocast(self._base.device, settings):
            loss = summed_loss(self._base.model, batch) / max(batch.targets, 1)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        stack.zero_grad()

    def _made(self, request: Request) -> Factors:
        """Return an adapter of the size of a run's; runs that differ in nothing that takes time share one."""
        kind = json.dumps(request.settings["adapter"], sort_keys=True)
        if kind not in self._factors:
            with new_adapter(self._base, request, self._documents, 1) as model:
                self._factors[kind] = factors_of(model)
        return self._factors[kind]
