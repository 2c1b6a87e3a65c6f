"""How many adapters go together best: trials of a few training steps and answers, by adapters that are thrown away."""

import contextlib
import json
import math
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from lorafile.engine.batching.batches import by_length, collate_prompts, fill_device, join_batches
from lorafile.engine.batching.tokens import PackedExamples, Unit, training_units
from lorafile.engine.inference.generation import answer
from lorafile.engine.inference.predictions import load_split
from lorafile.engine.model.adapters import autocast, checkpointed, new_adapter
from lorafile.engine.model.base import Base, Bases
from lorafile.engine.model.head import load_tokens
from lorafile.engine.model.loss import summed_loss
from lorafile.engine.model.peak_memory import is_out_of_memory, reset_peak
from lorafile.engine.nodes.train import Stepper, largest_step, step_batches, total_steps
from lorafile.engine.request import PackSizes, Report, Request, Stopped
from lorafile.engine.stacking.stack import Factors, Stack, factors_of
from lorafile.engine.training.curve import Curve
from lorafile.engine.training.optimizer import make_optimizer

TIMED = 2  # steps of each width, after one that warms up
_LONG = 0.25  # seconds of one step on a CPU: its cores are busy then, and a pack brings nothing
_FREE = 0.9  # of a GPU's memory
_NEW = 8  # tokens of an answer
_Parts = list[list[Unit]]  # each adapter's rows in a step
_GAIN = 1.1  # what a doubling has to bring
_SHARE = 0.05  # of the work that it decides, at most, may the measurement take


@dataclass(frozen=True)
class Speed:
    """What was measured at one width: seconds of a step, and what is done in a second."""

    seconds: float
    rate: float


class TrialAdapters:
    """Adapters of the sizes of some runs; runs that differ in nothing that takes time share one."""

    def __init__(self, base: Base, requests: list[Request]) -> None:
        self.base, self.requests = base, requests
        self.documents = load_tokens(requests[0], "train")
        self._factors: dict[str, Factors] = {}

    def stack(self, width: int, trained: bool) -> Stack:
        """Return the first adapters as a stack."""
        return Stack(self.base.model, [self._factors_of(request) for request in self.requests[:width]], trained=trained)

    def _factors_of(self, request: Request) -> Factors:
        kind = json.dumps(request.settings["adapter"], sort_keys=True)
        if kind not in self._factors:
            with new_adapter(self.base, request, self.documents, 1) as model:
                self._factors[kind] = factors_of(model)
        return self._factors[kind]


class TrainingTrial:
    """Steps on real examples, by adapters that are thrown away.

    :ivar steps: of all runs, one by one
    """

    def __init__(self, adapters: TrialAdapters, report: Report) -> None:
        self._adapters, self._report = adapters, report
        self._base, self._requests = adapters.base, adapters.requests
        self._training = adapters.requests[0].settings["training"]
        self._tokens = training_units(adapters.documents, self._base.model, self._training)[0]
        self.steps = sum(total_steps(len(self._tokens), request.settings["training"]) for request in self._requests)
        self._peaks: dict[int, int] = {}
        self._first = 0.0

    def most(self) -> int:
        """Return how many adapters there are, or as many of them as memory holds or a processor has time for."""
        if self._base.device.type != "cuda":
            return 1 if self._first > _LONG else len(self._requests)
        if len(self._peaks) < 2:
            return len(self._requests)
        single, both = self._peaks[1], self._peaks[2]
        room = _FREE * (torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()) - single
        return min(len(self._requests), 1 + max(0, int(room / max(both - single, 1))))

    def speed(self, width: int) -> Speed:
        """Measure the peak of the longest step, and the time of ordinary ones.

        :raises Stopped: when the work is to end
        """
        self._report({})
        seconds, tokens = 0.0, 0
        orders = [self._order(request) for request in self._requests[:width]]
        with self._steps(self._requests[:width]) as step:
            reset_peak(self._base.device)
            # On a CPU memory is not what limits: any step will do in place of the longest.
            cuda = self._base.device.type == "cuda"
            step([largest_step(self._tokens, self._training)[0]] * width if cuda else [order[0] for order in orders])
            if cuda:
                self._peaks[width] = torch.cuda.max_memory_allocated()
            for parts in zip(*orders, strict=True):
                seconds += self._base.timed(lambda parts=parts: step(list(parts)))  # type: ignore[misc]
                tokens += sum(len(self._tokens.example(row)[0]) for part in parts for row in part)
        self._first = self._first or seconds / TIMED
        return Speed(seconds / TIMED, tokens / seconds)

    def _order(self, request: Request) -> _Parts:
        """Return some whole micro-batches of a run, as it would begin; packed ones have as many rows as they take."""
        training = request.settings["training"]
        whole = min(training["per_device_train_batch_size"], len(self._tokens))
        whole = 1 if isinstance(self._tokens, PackedExamples) else whole
        batches = (
            part for _, group in step_batches(self._tokens, training, request.settings["seed"]) for part in group
        )
        return list(islice((part for part in batches if len(part) >= whole), TIMED))

    @contextlib.contextmanager
    def _steps(self, requests: list[Request]) -> Iterator[Callable[[_Parts], Any]]:
        """Yield what does one step: of a single adapter as it is trained alone, of several as a stack."""
        settings = requests[0].settings["training"]
        if len(requests) == 1:
            steps = 1 + TIMED
            alone = new_adapter(self._base, requests[0], self._adapters.documents, steps)
            with alone as model, checkpointed(model, settings["gradient_checkpointing"]):
                stepper = Stepper(self._base, model.train(), settings, steps)
                yield lambda parts: stepper.step(self._tokens, parts, Curve())
            return
        model = self._base.model
        stack = self._adapters.stack(len(requests), trained=True)
        optimizers = [make_optimizer(stack.row(at), run.settings["training"]) for at, run in enumerate(requests)]
        with stack.attached(), checkpointed(model.train(), settings["gradient_checkpointing"]):
            yield lambda parts: self._step(stack, optimizers, settings, parts)
        model.eval()

    def _step(
        self, stack: Stack, optimizers: list[torch.optim.Optimizer], settings: dict[str, Any], parts: _Parts
    ) -> None:
        """Do one step of a stack: one forward pass over all micro-batches, each adapter on its own rows."""
        batches = [self._base.collate(self._tokens, part) for part in parts]
        stack.rows = [(len(batch.input_ids), batch.input_ids.shape[1]) for batch in batches]
        batch = join_batches(batches, self._base.padding)
        with autocast(self._base.device, settings):
            loss = summed_loss(self._base.model, batch) / max(batch.targets, 1)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        stack.zero_grad()


class AnswerTrial:
    """Beginnings of answers to the first batch of prompts that one adapter alone would get.

    :ivar steps: so many of them are all answers of all runs
    """

    def __init__(self, adapters: TrialAdapters, requests: list[Request], report: Report) -> None:
        self._adapters, self._base, self._report = adapters, adapters.base, report
        longest = max(requests, key=lambda request: request.settings["task"]["max_new_tokens"])
        self._split = load_split(longest)
        new = self._split.task["max_new_tokens"]
        self._task = self._split.task | {"max_new_tokens": min(new, _NEW)}
        lengths, size = self._split.tokens.prompts.tolist(), self._split.size
        batches = by_length(lengths, size) if size else fill_device([n + new for n in lengths], 1, self._base.device)
        self._indexes = batches[0]
        self.steps = len(requests) * len(batches) * math.ceil(new / _NEW)

    @torch.inference_mode()
    def speed(self, width: int) -> Speed:
        """Measure answers of so many adapters to the same prompts.

        :raises Stopped: when the work is to end
        """
        self._report({})
        rows = [self._split.lines[index]["row"] for index in self._indexes]
        padding = self._base.padding
        batch = collate_prompts(self._split.tokens, self._indexes * width, padding, self._base.device)
        model: Any = self._base.model
        with self._adapters.stack(width, trained=False).attached():
            model.eval()

            def write() -> None:
                answer(self._base, model, batch, self._task, rows * width, width)

            write()
            seconds = sum(self._base.timed(write) for _ in range(TIMED))
        return Speed(seconds / TIMED, TIMED * len(rows) * width / seconds)


def measure_pack_sizes(replicates: list[list[Request]], bases: Bases, report: Report) -> PackSizes:
    """Return how many of some replicates go together best; one where that cannot be measured or is not worth it.

    Where there are answers to write, these decide how many predict at a time; else as many as train.

    :raises Stopped: when the work is to end
    """
    requests = [request for replicate in replicates for request in replicate]
    trains = [request for request in requests if request.kind == "train"]
    predicts = [request for request in requests if request.kind == "predict"]
    if len(trains) < 2:
        return PackSizes()
    try:
        with bases.proven(trains[0].settings, trains[0].paths) as base:
            adapters = TrialAdapters(base, trains)
            training = TrainingTrial(adapters, report)
            train, speeds = widest(training.speed, training.most, training.steps)
            why, predict = _sentence("Training", train, speeds, "tokens/s"), train
            writers = [request for request in predicts if request.settings["task"]["output"] == "generation"]
            if writers:
                answering = AnswerTrial(adapters, writers, report)
                width, speeds = widest(answering.speed, lambda: len(trains), answering.steps)
                predict = width if speeds else predict
                why += _sentence("Generating with", width, speeds, "answers/s")
    except Stopped:
        raise
    except Exception as error:  # a run that fails says so itself, with an outcome of its own
        traceback.print_exc()
        return PackSizes(why=f"Training adapters one at a time (packing them could not be measured: {error}).")
    return PackSizes(train, predict, why.strip())


def widest(speed: Callable[[int], Speed], most: Callable[[], int], steps: int) -> tuple[int, dict[int, Speed]]:
    """Return the width beyond which a doubling gains too little, and what was measured at 1, 2, 4, … until then.

    :param most: so many there are, or memory holds; asked again after each measurement
    :param steps: how many steps of one adapter the work has that this decides: little is not worth to be measured
    """
    each = 1 + TIMED
    if 3 * each > _SHARE * steps:  # of one, and of two
        return 1, {}
    width, speeds, spent = 1, {1: speed(1)}, 0.0
    while (wider := min(2 * width, most())) > width:
        spent += each * speeds[width].seconds
        if spent + 2 * each * speeds[width].seconds > _SHARE * steps * speeds[1].seconds:
            break
        try:
            speeds[wider] = speed(wider)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
        if speeds[wider].rate < _GAIN * speeds[width].rate:
            break
        width = wider
    return width, speeds


def _sentence(what: str, width: int, speeds: dict[int, Speed], unit: str) -> str:
    """Return a sentence with a space before it on what was measured; nothing where nothing was."""
    if not speeds:
        return ""
    lead = f"{what} {width} adapters at a time" if width > 1 else f"{what} adapters one at a time"
    if len(speeds) == 1:
        return f" {lead} ({speeds[1].seconds:.2g} s each; two did not fit, or a trial was not worthwhile)."
    rates = (f"{speed.rate:,.0f}" if speed.rate >= 100 else f"{speed.rate:.2g}" for speed in speeds.values())
    measured = ", ".join(f"{rate} {unit} with {number}" for number, rate in zip(speeds, rates, strict=True))
    return f" {lead} ({measured})."
