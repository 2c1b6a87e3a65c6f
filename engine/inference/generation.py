"""Answers: prompts padded on the left, decoded so that an answer never depends on what else is in its batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import (
    LogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lorafile.engine.batching.batches import Batch
from lorafile.engine.data.encode import chat_of, ids_of
from lorafile.engine.inference.decoding import Rules, can_decode, decode
from lorafile.engine.model.base import Base
from lorafile.engine.model.methods import cached_tokens, virtual_tokens, with_virtual_tokens
from lorafile.engine.randomness import derive
from lorafile.errors import NodeError

Task = dict[str, Any]
LORAFILE_DECODER = "lorafile"


class Answer(NamedTuple):
    """An answer's text, and whether it was cut: ended by the most tokens that it may have, and by nothing else."""

    text: str
    cut: bool


def generate(base: Base, model: Any, batch: Batch, new_tokens: int, least: int = 0) -> list[str]:
    """Return the greedy answer to each prompt, without special tokens, by transformers' own `generate`.

    A model is deployed with it or its like, which is why a profile measures it.
    """
    task = {"max_new_tokens": new_tokens, "min_new_tokens": least}
    return _texts(base, _by_transformers(*_prompts(base, model, batch), task, [], []))


def answer(base: Base, model: Any, batch: Batch, task: Task, rows: list[int], slices: int = 1) -> list[Answer]:
    """Return the answer to each prompt, without special tokens, up to the first of the strings that end one.

    Settings of the task that are absent are greedy decoding's. Samples are drawn by the Gumbel-max trick (the arg max
    of logits plus Gumbel noise is a draw from their softmax; Maddison et al. 2014), so that every example can have a
    generator of its own: transformers' sampling draws one after another for the whole batch.

    :param rows: the examples' numbers, from which their generators are seeded; read only where `do_sample` is true
    :param slices: how many adapters the prompts are for, each with as many
    """
    reader, prompts, embeddings = _prompts(base, model, batch)
    settings: Any = base.model.generation_config
    stops, ends = [*task.get("stop_strings", [])], [*settings.eos_token_id]
    if task.get("stop_at_turn"):
        turn_stops, turn_ends = end_of_turn(base.tokenizer)
        stops, ends = stops + turn_stops, ends + turn_ends
    processors = _processors(prompts, task, rows)
    stopping = [_Ended(base.tokenizer, prompts.input_ids.shape[1], stops)] if stops else []
    if decoder(reader, task) == LORAFILE_DECODER:
        rules = Rules(task["max_new_tokens"], ends, processors, stopping, slices)
        tokens = decode(reader, prompts, rules, embeddings)
    elif cached_tokens(reader):
        raise NodeError(
            "evaluate.num_beams: with trained keys and values before a text, transformers' own generation lets an "
            "answer depend on the other prompts in its batch. Set it to 1, and use a model without recurrent layers."
        )
    else:
        tokens = _by_transformers(reader, prompts, embeddings, task | {"ends": ends}, processors, stopping).tolist()
    answers = []
    for made, text in zip(tokens, _texts(base, tokens), strict=True):
        stop = min((text.find(stop) for stop in stops if stop in text), default=None)
        cut = stop is None and len(made) >= task["max_new_tokens"] and not {*made} & {*ends}
        answers.append(Answer(text[:stop], cut))
    return answers


def end_of_turn(tokenizer: Any) -> tuple[list[str], list[int]]:
    """Return what ends an answer of a conversation: what the chat template writes between it and the next question.

    :return: strings, or tokens where that holds a special one: a base model without a turn of its own to learn from
        may go on behind it with a question that it invents
    """
    if tokenizer.chat_template is None:  # the study has another
        return [], []
    between = chat_of(tokenizer, {"date": "2000-01-01"}).between()  # no date stands there
    special = [token for token in ids_of(tokenizer, [(between, True)])[0] if token in tokenizer.all_special_ids]
    if special:
        return [], special[:1]
    return ([between.strip()] if between.strip() else []), []


def decoder(reader: Any, task: Task) -> str:
    """Return which decoder answers: our own (`decode`), or transformers' `generate`, which is slower.

    :param reader: the model that reads the prompts
    """
    return LORAFILE_DECODER if task.get("num_beams", 1) == 1 and can_decode(reader) else "transformers"


def _prompts(base: Base, model: Any, batch: Batch) -> tuple[Any, Batch, torch.Tensor | None]:
    """Return the model that reads some prompts, and the prompts as it takes them.

    :return: with them, where some tokens are virtual, what stands for all of them: [b, t, h]
    """
    return (base.model, *with_virtual_tokens(model, batch)) if virtual_tokens(model) else (model, batch, None)


def _by_transformers(
    reader: Any,
    prompts: Batch,
    embeddings: torch.Tensor | None,
    task: Task,
    processors: list[LogitsProcessor],
    stopping: Sequence[StoppingCriteria],
) -> torch.Tensor:
    """Return the new tokens of each prompt [b, t], padded."""
    ids: torch.Tensor = reader.generate(
        input_ids=prompts.input_ids,
        attention_mask=prompts.attention_mask,
        do_sample=False,
        num_beams=task.get("num_beams", 1),
        max_new_tokens=task["max_new_tokens"],
        min_new_tokens=task.get("min_new_tokens", 0),
        logits_processor=processors,
        stopping_criteria=stopping,
        **({"eos_token_id": task["ends"]} if "ends" in task else {}),
        **({} if embeddings is None else {"inputs_embeds": embeddings}),
    )
    return ids[:, prompts.input_ids.shape[1] :]


def _texts(base: Base, tokens: torch.Tensor | list[list[int]]) -> list[str]:
    texts: list[str] = base.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


def _processors(batch: Batch, task: Task, rows: list[int]) -> list[LogitsProcessor]:
    processors: list[LogitsProcessor] = []
    if "repetition_penalty" in task:
        processors.append(_Repetition(task["repetition_penalty"], batch, task.get("num_beams", 1)))
    if task.get("do_sample"):
        processors.append(TemperatureLogitsWarper(float(task["temperature"])))
        processors += [TopKLogitsWarper(task["top_k"])] if task["top_k"] else []
        processors += [TopPLogitsWarper(float(task["top_p"]))] if task["top_p"] < 1 else []
        processors.append(_Gumbel([derive(task["seed"], f"sample:{row}") for row in rows]))
    return processors


class _Gumbel(LogitsProcessor):
    """Adds Gumbel noise, each row's from a generator of its own on the CPU: the same on every device."""

    def __init__(self, seeds: list[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return scores [b, v] plus noise."""
        uniform = torch.stack(
            [torch.rand(scores.shape[1], generator=generator, dtype=torch.float64) for generator in self._generators]
        )
        noise = -(-uniform.clamp_min(torch.finfo(torch.float64).tiny).log()).log()
        return scores + noise.to(scores.device, scores.dtype)

    def keep(self, rows: torch.Tensor) -> None:
        """Forget the generators of all rows but some."""
        self._generators = [self._generators[row] for row in rows.tolist()]


class _Repetition(LogitsProcessor):
    """Penalises what a row has said already, its padding left out.

    transformers' own counts padding, too: where that is the end token, a padded row would end later than it does alone.
    """

    def __init__(self, penalty: float, batch: Batch, beams: int) -> None:
        self._penalty = RepetitionPenaltyLogitsProcessor(penalty)
        self._padding = (batch.attention_mask == 0).repeat_interleave(beams, dim=0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [b, v] with repeated tokens penalised."""
        width = self._padding.shape[1]
        last = input_ids[:, width - 1 : width]  # a prompt is padded on the left: its last token is its own
        prompt = torch.where(self._padding, last, input_ids[:, :width])
        penalised: torch.Tensor = self._penalty(torch.cat([prompt, input_ids[:, width:]], dim=1), scores)
        return penalised

    def keep(self, rows: torch.Tensor) -> None:
        """Forget the padding of all rows but some."""
        self._padding = self._padding[rows]


class _Ended(StoppingCriteria):
    """Ends a row whose answer holds one of some strings, however its tokens fall."""

    def __init__(self, tokenizer: Any, start: int, stops: list[str]) -> None:
        self._tokenizer, self._start, self._stops = tokenizer, start, stops

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """Return for each row whether it has ended."""
        texts = self._tokenizer.batch_decode(input_ids[:, self._start :], skip_special_tokens=True)
        ended = [any(stop in text for stop in self._stops) for text in texts]
        return torch.tensor(ended, device=input_ids.device)
