"""What no single run can show of a program: that it heeds its seed, rate and data, and goes on where it stopped.

It is run several times on a few train rows, next to the built-in loop.
"""

import random
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.model.adapters import stored_adapter
from lorafile.engine.model.base import Bases
from lorafile.engine.request import Report, Request, Result, Stopped
from lorafile.engine.trainers.checks import mean_loss
from lorafile.errors import NodeError
from lorafile.files.jsonl import read_lines, write_lines

ROWS, STEPS, BATCH = 64, 40, 16
_SEEDS = (1, 2, 3)
_STOP_AT = STEPS // 3
_CLEARLY = 0.1  # of a loss: what shuffled answers must cost at least
_DEVIATIONS, _SHARE = 4.0, 0.25  # of the built-in loop's losses over seeds, or of its loss: what may be the loop's own
_ADAPTER, _EXAMPLES, _TOKENS = "adapter_model.safetensors", "examples.jsonl.gz", "tokens.safetensors"

Run = Callable[[Request, Path, Bases, Report], Result]


@dataclass(frozen=True)
class Finding:
    """What one probe found.

    :ivar name: the probe
    :ivar holds: whether the program does what it should
    """

    name: str
    holds: bool
    text: str


def probe(request: Request, root: Path, run: Run, say: Callable[[str], None] = lambda _: None) -> Iterator[Finding]:
    """Probe a program; yield what each probe found.

    :param request: of a run of the program, of which only data, steps and seed are changed
    :param root: an empty directory
    :param run: the engine's `run`
    :param say: called with what is done next
    :raises NodeError: when an honest run ends in any other way than done
    """
    yield from _Prober(request, root, run, say).findings()


class _Prober:
    def __init__(self, request: Request, root: Path, run: Run, say: Callable[[str], None]) -> None:
        training = request.settings["training"] | {"max_steps": STEPS, "gradient_accumulation_steps": 1}
        training["per_device_train_batch_size"] = min(BATCH, training["per_device_train_batch_size"])
        self.root, self.run, self.say, self.bases, self.count = root, run, say, Bases(), 0
        self.tokens, self.inputs = _first_rows(request, root / "rows")
        self.request = replace(
            request, settings=request.settings | {"training": training}, inputs={"train": self.inputs}
        )
        self.sft = request.settings["trainer"]["objective"] == "sft"

    def findings(self) -> Iterator[Finding]:
        self.say("one seed, twice")
        first, again = self._done(1), self._done(1)
        noise = _difference(first, again)
        same = "equal bytes" if not noise else f"the values differ by up to {noise:.2g}, on this device"
        yield Finding("same seed", True, f"twice with one seed: {same}")
        self.say("another seed")
        other = _difference(first, self._done(2))
        what = f"another seed: the values differ by up to {other:.2g}"
        yield Finding("other seed", other > noise, what if other > noise else "another seed: no other values")
        self.say("a stop, and on from there")
        yield self._resumed(first, noise)
        if not self.sft:  # what else it trains on decides its loss
            return
        self.say("shuffled answers")
        loss = self._loss(first)
        shuffled = self._loss(self._done(1, _shuffled(self.tokens, self.inputs, self.root / "shuffled")))
        text = f"trained on shuffled answers: a loss of {shuffled:.3f} on the true ones, instead of {loss:.3f}"
        yield Finding("data", shuffled > loss * (1 + _CLEARLY), text)
        self.say("the built-in loop, three times")
        yield self._next_to_builtin(loss)

    def _resumed(self, whole: dict[str, str], noise: float) -> Finding:
        request = self._fresh(1)
        try:
            stopped, _ = self._run(request, _stop_at(_STOP_AT))
            if stopped.outcome == "done":
                return Finding("resume", False, f"asked to stop at step {_STOP_AT}: it went on to its end")
            result, files = self._run(request)
        except NodeError as error:
            return Finding("resume", False, str(error))
        if result.outcome != "done":
            return Finding("resume", False, f"stopped and continued: {result.message}")
        apart, began = _difference(whole, files), result.figures.get("resumed_from", [0])[0]
        how = "equal to the whole run" if not apart else f"differs from the whole run by up to {apart:.2g}"
        start = f"continued after step {began}" if began else "started again from step 1"
        return Finding("resume", bool(began) and apart <= noise, f"stopped at step {_STOP_AT}, {start}: {how}")

    def _next_to_builtin(self, loss: float) -> Finding:
        own = []
        settings = {name: value for name, value in self.request.settings.items() if name != "trainer"}
        for seed in _SEEDS:
            request = replace(self._fresh(seed), settings=settings | {"seed": seed})
            result, files = self._run(request)
            if result.outcome != "done":
                return Finding("builtin", False, f"the built-in loop ended otherwise: {result.message}")
            own.append(self._loss(files))
        mean, allowed = statistics.fmean(own), max(_DEVIATIONS * statistics.stdev(own), _SHARE * statistics.fmean(own))
        text = (
            f"a loss of {loss:.3f} on its train rows; the built-in loop's is {mean:.3f} ± {statistics.stdev(own):.3f}"
        )
        return Finding("builtin", abs(loss - mean) <= allowed, text)

    def _fresh(self, seed: int) -> Request:
        """Return a request with a checkpoint directory of its own."""
        self.count += 1
        kept = self.root / f"kept{self.count}"
        paths = self.request.paths | {"checkpoint": str(kept)}
        return replace(
            self.request, key=f"probe{self.count}", settings=self.request.settings | {"seed": seed}, paths=paths
        )

    def _done(self, seed: int, inputs: dict[str, str] | None = None) -> dict[str, str]:
        """Return the files of a whole run.

        :raises NodeError: when it ends in another way
        """
        request = self._fresh(seed)
        result, files = self._run(request if inputs is None else replace(request, inputs={"train": inputs}))
        if result.outcome != "done":
            raise NodeError(result.message or f"the program ended as {result.outcome}")
        return files

    def _run(self, request: Request, report: Report = lambda _: None) -> tuple[Result, dict[str, str]]:
        self.count += 1
        out = self.root / f"out{self.count}"
        result = self.run(request, out, self.bases, report)
        shutil.rmtree(out / "run", ignore_errors=True)
        return result, {name: str(out / name) for name in result.files if name != "program.json"}

    def _loss(self, files: dict[str, str]) -> float:
        adapter = {name: path for name, path in files.items() if name.startswith("adapter")}
        with (
            self.bases.proven(self.request.settings, self.request.paths) as base,
            stored_adapter(base, adapter) as model,
        ):
            return mean_loss(base, model, self.tokens, self.request)


def _stop_at(step: int) -> Report:
    def report(progress: dict[str, Any]) -> None:
        if progress.get("step", 0) >= step:
            raise Stopped

    return report


def _difference(one: dict[str, str], other: dict[str, str]) -> float:
    first, second = load_file(one[_ADAPTER]), load_file(other[_ADAPTER])
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def _first_rows(request: Request, place: Path) -> tuple[Tokens, dict[str, str]]:
    """Return the first train rows, and the files that hold them."""
    files = request.inputs["train"]
    tokens, lines = Tokens.load(files[_TOKENS]), list(read_lines(Path(files[_EXAMPLES])))
    return _written(_joined([tokens.example(n) for n in range(min(ROWS, len(tokens)))], tokens), lines[:ROWS], place)


def _shuffled(tokens: Tokens, files: dict[str, str], place: Path) -> dict[str, str]:
    """Return the files of the same rows, each with the answer of another."""
    examples = [tokens.example(number) for number in range(len(tokens))]
    order = list(range(len(examples)))
    random.Random(0).shuffle(order)
    sizes = tokens.prompts.tolist()
    mixed = []
    for number, (ids, marks) in enumerate(examples):
        other_ids, other_marks = examples[order[number]]
        start, own = sizes[order[number]], sizes[number]
        mixed.append((torch.cat([ids[:own], other_ids[start:]]), torch.cat([marks[:own], other_marks[start:]])))
    return _written(_joined(mixed, tokens), list(read_lines(Path(files[_EXAMPLES]))), place)[1]


def _joined(examples: list[tuple[torch.Tensor, torch.Tensor]], tokens: Tokens) -> Tokens:
    ids, marks = (torch.cat(parts) for parts in zip(*examples, strict=True))
    offsets = torch.tensor([0] + [len(each) for each, _ in examples]).cumsum(0)
    return Tokens(ids.to(torch.int32), marks.to(torch.uint8), offsets, tokens.prompts[: len(examples)].clone())


def _written(tokens: Tokens, lines: list[dict[str, Any]], place: Path) -> tuple[Tokens, dict[str, str]]:
    place.mkdir(parents=True)
    tokens.save(place / _TOKENS)
    write_lines(place / _EXAMPLES, lines)
    return tokens, {name: str(place / name) for name in (_TOKENS, _EXAMPLES)}
