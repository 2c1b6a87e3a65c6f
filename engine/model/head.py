"""Classification heads: one score for each class, read at the last token of a text."""

from typing import Any

import torch
from torch import nn

from lorafile.engine.batching.batches import Batch
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.randomness import seeded
from lorafile.engine.request import Request
from lorafile.errors import NodeError
from lorafile.files.jsonl import read_lines

NAME = "score"  # what transformers calls the head of a model that was made to write text


def is_head(settings: dict[str, Any]) -> bool:
    """Return whether a model of these settings is a classifier."""
    return str(settings["model"].get("task_type")) == "SEQ_CLS"


def is_new(settings: dict[str, Any]) -> bool:
    """Return whether the head is drawn for each replicate, because the checkpoint has none."""
    return is_head(settings) and settings["model"]["head"] == "new"


def head_options(model: dict[str, Any]) -> dict[str, Any]:
    """Return transformers' options for a head: the classes by name, in the order of their scores."""
    names = model["labels"]
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def in_float32(model: Any) -> None:
    """Hold a head in float32 whatever the base is, as adapters are: small steps are lost in half precision."""
    head: nn.Module = getattr(model, NAME)
    head.float()
    head.register_forward_pre_hook(_cast)


def _cast(head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.to(next(head.parameters()).dtype) for value in inputs)


def draw_head(model: Any, settings: dict[str, Any], seed: int) -> None:
    """Draw a new head as transformers does, from the replicate's own seed; one that came with its checkpoint stays."""
    if not is_new(settings):
        return
    spread = getattr(model.config.get_text_config(), "initializer_range", 0.02)
    with torch.no_grad(), seeded(seed, "head"):
        drawn = torch.empty(getattr(model, NAME).weight.shape).normal_(0.0, spread)
        getattr(model, NAME).weight.copy_(drawn)


def num_choices(model: Any) -> int:
    """Return among how many tokens, or classes, a model chooses: what a blind guess is of."""
    head = getattr(model, NAME, None)
    return int(model.get_input_embeddings().weight.shape[0] if head is None else model.config.num_labels)


def load_tokens(request: Request, role: str) -> Tokens:
    """Return the prepared examples of a split: for a head each text alone, with its class.

    :raises NodeError: when a text is empty, or ends with the token that means padding
    """
    tokens = Tokens.load(request.inputs[role]["tokens.safetensors"])
    if not is_head(request.settings):
        return tokens
    names = request.settings["model"]["labels"]
    lines = list(read_lines(request.inputs[role]["examples.jsonl.gz"]))
    empty = next((line["row"] for line, length in zip(lines, tokens.prompts.tolist(), strict=True) if not length), None)
    if empty is not None:
        raise NodeError(f"data: row {empty} has no text that a classification head could read.")
    return tokens.texts(torch.tensor([names.index(line["reference"]) for line in lines]))


def class_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the scores [b, classes] of a batch in float32.

    :raises NodeError: when a text ends with the token that transformers takes for padding
    """
    last = batch.input_ids[torch.arange(len(batch.indexes)), batch.attention_mask.sum(dim=1) - 1]
    if (last == model.config.get_text_config().pad_token_id).any():
        raise NodeError("data: a text ends with the token that pads, so that a head would not be read at its end.")
    output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    logits: torch.Tensor = output.logits.float()
    return logits


def class_choices(model: Any, batch: Batch, names: list[str]) -> list[dict[str, Any]]:
    """Return for each example its likeliest class (`answer`), and the log likelihood of each (`scores`, in nats)."""
    logs = class_logits(model, batch).double().log_softmax(dim=-1).tolist()
    return [{"answer": names[row.index(max(row))], "scores": dict(zip(names, row, strict=True))} for row in logs]
