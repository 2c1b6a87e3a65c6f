"""Choices: the label that a language model finds likeliest after a prompt."""

from typing import Any

from lorafile.engine.base import Base
from lorafile.engine.batches import by_length, collate
from lorafile.engine.encode import Encoded, encode
from lorafile.engine.loss import likelihoods
from lorafile.engine.templates import Example
from lorafile.engine.tokens import Tokens, pack

Line = dict[str, Any]


def choose(base: Base, model: Any, prompts: list[list[int]], lines: list[Line], size: int) -> list[dict[str, Any]]:
    """Return for each example the likeliest label (`answer`), and the log likelihood of each (`scores`, in nats).

    A label's score is that of all its tokens after the prompt, the likelihood of a whole answer; where one label begins
    another, the end token closes both, because the shorter one could never lose otherwise.

    :param prompts: the prompts' tokens as they were prepared; `lines`: what else is known of the examples
    :param size: how many examples go through the model at once, each with one of its labels
    """
    candidates, owners = [], []
    for number, (prompt, line) in enumerate(zip(prompts, lines, strict=True)):
        labels = label_tokens(base.tokenizer, line)
        candidates += [Encoded(prompt + ids, [0] * len(prompt) + [1] * len(ids), len(prompt)) for ids in labels]
        owners += [(number, name) for name in line["choices"]]
    tokens: Tokens = pack(candidates)
    scores: list[dict[str, float]] = [{} for _ in lines]
    padding = base.tokenizer.pad_token_id or 0
    for indexes in by_length(tokens.lengths(), size):
        found = likelihoods(model, collate(tokens, indexes, padding, base.device))
        for index, one in zip(indexes, found, strict=True):
            number, name = owners[index]
            scores[number][name] = one["log_likelihood"]
    return [{"answer": likeliest(one, line["choices"]), "scores": one} for one, line in zip(scores, lines, strict=True)]


def likeliest(scores: dict[str, float], choices: list[str]) -> str:
    """Return the label of the highest score; of equals the first, so that the answer never depends on a batch."""
    return max(choices, key=lambda name: scores[name])


def label_tokens(tokenizer: Any, line: Line) -> list[list[int]]:
    """Return the tokens of each label after an example's prompt, as training would tokenize them."""
    examples = [Example(line["prompt"], completion, "") for completion in line["completions"]]
    whole = [one.input_ids[one.prompt :] for one in encode(tokenizer, examples, completion_only=True)]
    end = tokenizer.eos_token_id
    bare = [ids[:-1] if ids[-1] == end and len(ids) > 1 else ids for ids in whole]
    begins = any(a is not b and b[: len(a)] == a for a in bare for b in bare)
    return whole if begins else bare
