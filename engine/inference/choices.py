"""Choices: the label that a language model finds likeliest after a prompt."""

from typing import Any

from lorafile.engine.batching.tokens import Tokens, pack
from lorafile.engine.data.encode import Encoded, encode
from lorafile.engine.data.example import Example

Line = dict[str, Any]


def candidates(tokenizer: Any, tokens: Tokens, lines: list[Line]) -> tuple[Tokens, list[tuple[int, str]]]:
    """Return each example's prompt with each of its labels after it, and which example and label that is.

    A label's score is that of all its tokens after the prompt, the likelihood of a whole answer; where one label begins
    another, the end token closes both, because the shorter one could never lose otherwise.
    """
    found, owners = [], []
    for number, line in enumerate(lines):
        prompt = tokens.prompt(number)
        labels = label_tokens(tokenizer, line)
        found += [Encoded(prompt + ids, [0] * len(prompt) + [1] * len(ids), len(prompt)) for ids in labels]
        owners += [(number, name) for name in line["choices"]]
    return pack(found), owners


def chosen(found: list[Line], owners: list[tuple[int, str]], lines: list[Line]) -> list[Line]:
    """Return for each example the likeliest label (`answer`), and the log likelihood of each (`scores`, in nats).

    :param found: the likelihood of each candidate
    """
    scores: list[dict[str, float]] = [{} for _ in lines]
    for (number, name), one in zip(owners, found, strict=True):
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
