"""Predictions for the examples of a split, in batches that fill the device, for one adapter or several at once."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lorafile.engine.batching.batches import Batch, by_length, collate_prompts, fill_device
from lorafile.engine.batching.tokens import Tokens, pack
from lorafile.engine.data.encode import Encoded, encode
from lorafile.engine.data.example import Example
from lorafile.engine.inference.generation import answer
from lorafile.engine.model.base import Base
from lorafile.engine.model.head import class_choices, load_tokens, numbers
from lorafile.engine.model.loss import likelihoods
from lorafile.engine.model.peak_memory import is_out_of_memory
from lorafile.engine.request import EVAL_BATCH, Report, Request
from lorafile.files.jsonl import read_lines

Line = dict[str, Any]
CUT = "cut"  # of an answer, for the figures alone: whether the most new tokens ended it
# What the metrics of an output need of an example in addition to what the model made of it.
_CARRIED = {
    "likelihood": ("row", "reference", "bytes"),
    "generation": ("row", "reference", "references", "unanswerable"),
    "choice": ("row", "reference"),
    "regression": ("row", "reference"),
}
_Work = Callable[[list[int]], list[Line]]


@dataclass(frozen=True)
class Split:
    """Prepared examples, and what is asked of them.

    :ivar lines: what else is known of each example
    :ivar size: the most examples in a batch; None: as many as fill the device
    """

    tokens: Tokens
    lines: list[Line]
    task: dict[str, Any]
    labels: list[str]
    size: int | None


def load_split(request: Request) -> Split:
    """Return the examples that a request reads."""
    return Split(
        load_tokens(request, "data"),
        list(read_lines(request.inputs["data"]["examples.jsonl.gz"])),
        request.settings["task"],
        request.settings["model"].get("labels", []),
        request.execution.get(EVAL_BATCH),
    )


@torch.inference_mode()
def predictions(base: Base, model: Any, split: Split, report: Report, slices: int = 1) -> list[list[Line]]:
    """Return for each adapter what it makes of each example, in their order.

    :param slices: how many adapters the model holds: rows go through it adapter by adapter, with as many for each
    """
    return predict_split(base, model, split, report, slices)


def predict_split(base: Base, model: Any, split: Split, report: Report, slices: int = 1) -> list[list[Line]]:
    """Do what `predictions` does, whether or not torch records what is computed."""
    reader = _Reader(base, model, split, report, slices)
    if split.task["output"] == "generation":
        return reader.answers()
    if split.task["output"] == "choice" and split.tokens.labels is None:
        texts, owners = candidates(base.tokenizer, split.tokens, split.lines)
        return [choose_labels(lines, owners, split.lines) for lines in reader.read(texts, likelihoods)]
    if split.task["output"] == "regression":
        return reader.read(split.tokens, numbers)
    if split.tokens.labels is not None:
        return reader.read(split.tokens, lambda model, batch: class_choices(model, batch, split.labels))
    return reader.read(split.tokens, likelihoods)


def prediction_rows(split: Split, predicted: list[Line]) -> list[Line]:
    """Return what was predicted of each example, with what the metrics need of it."""
    carried = _CARRIED[split.task["output"]]
    return [
        {**{name: example[name] for name in carried if name in example}, **_without_cut(line)}
        for example, line in zip(split.lines, predicted, strict=True)
    ]


def _without_cut(line: Line) -> Line:
    return {name: value for name, value in line.items() if name != CUT}


@dataclass(frozen=True)
class _Reader:
    base: Base
    model: Any
    split: Split
    report: Report
    slices: int

    def read(self, tokens: Tokens, work: Callable[[Any, Batch], list[Line]]) -> list[list[Line]]:
        """Return what some work on whole texts finds."""

        def predict(indexes: list[int]) -> list[Line]:
            return work(self.model, self.base.collate(tokens, indexes).repeated(self.slices))

        return self._each(tokens.lengths(), predict)

    def answers(self) -> list[list[Line]]:
        """Return the answer to each prompt."""
        split = self.split

        def predict(indexes: list[int]) -> list[Line]:
            prompts = collate_prompts(split.tokens, indexes, self.base.padding, self.base.device)
            rows = [split.lines[index]["row"] for index in indexes] * self.slices
            answers = answer(self.base, self.model, prompts.repeated(self.slices), split.task, rows, self.slices)
            return [{"answer": text, CUT: cut} for text, cut in answers]

        new = split.task["max_new_tokens"]
        return self._each([length + new for length in split.tokens.prompts.tolist()], predict)

    def _each(self, lengths: list[int], work: _Work) -> list[list[Line]]:
        """Do some work on every example, of like lengths together, each `slices` times in a batch."""
        size = self.split.size
        batches = by_length(lengths, size) if size else fill_device(lengths, self.slices, self.base.device)
        results: list[list[Line]] = [[{}] * len(lengths) for _ in range(self.slices)]
        done = 0
        for indexes, lines in _smaller_where_needed(batches, work):
            for number, line in enumerate(lines):
                results[number // len(indexes)][indexes[number % len(indexes)]] = line
            done += len(indexes)
            self.report({"step": done, "steps": len(lengths)})
        return results


def _smaller_where_needed(batches: list[list[int]], work: _Work) -> Iterator[tuple[list[int], list[Line]]]:
    """Do some work on each batch, on half of it where the device has no memory for the whole."""
    waiting = batches[::-1]
    while waiting:
        indexes = waiting.pop()
        lines = None
        try:
            lines = work(indexes)
        except Exception as error:
            if len(indexes) == 1 or not is_out_of_memory(error):
                raise
        if lines is not None:
            yield indexes, lines
            continue
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        half = -(-len(indexes) // 2)
        waiting += [indexes[half:], indexes[:half]]


def candidates(tokenizer: Any, tokens: Tokens, lines: list[Line]) -> tuple[Tokens, list[tuple[int, str]]]:
    """Return each example's prompt with each of its labels after it, and which example and label that is.

    A label's score is that of all its tokens after the prompt, the likelihood of a whole answer; where one label begins
    another, the end token closes both, because the shorter one could never lose otherwise.
    """
    texts, owners = [], []
    for number, line in enumerate(lines):
        prompt = tokens.prompt(number)
        labels = label_tokens(tokenizer, line)
        texts += [Encoded(prompt + ids, [0] * len(prompt) + [1] * len(ids), len(prompt)) for ids in labels]
        owners += [(number, name) for name in line["choices"]]
    return pack(texts), owners


def choose_labels(likelihoods: list[Line], owners: list[tuple[int, str]], lines: list[Line]) -> list[Line]:
    """Return for each example the likeliest label (`answer`), and the log likelihood of each (`scores`, in nats).

    :param likelihoods: of each candidate
    """
    scores: list[dict[str, float]] = [{} for _ in lines]
    for (number, name), candidate in zip(owners, likelihoods, strict=True):
        scores[number][name] = candidate["log_likelihood"]
    return [{"answer": likeliest(s, line["choices"]), "scores": s} for s, line in zip(scores, lines, strict=True)]


def likeliest(scores: dict[str, float], choices: list[str]) -> str:
    """Return the label of the highest score; of equals the first, so that the answer never depends on a batch."""
    return max(choices, key=lambda name: scores[name])


def label_tokens(tokenizer: Any, line: Line) -> list[list[int]]:
    """Return the tokens of each label after an example's prompt, as training would tokenize them."""
    examples = [Example(line["prompt"], completion, "") for completion in line["completions"]]
    whole = [text.input_ids[text.prompt :] for text in encode(tokenizer, examples, completion_only=True)]
    end = tokenizer.eos_token_id
    bare = [ids[:-1] if ids[-1] == end and len(ids) > 1 else ids for ids in whole]
    begins = any(a is not b and b[: len(a)] == a for a in bare for b in bare)
    return whole if begins else bare
