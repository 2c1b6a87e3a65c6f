"""Classification heads: which modules of a model they are, how they are drawn, and what they say of a text.

A model that was made to write has one score for each class at a text's last token; an encoder has a head of its class's
own, often of several layers, over what the class pools. A regression is a head of one output, which is the number.
"""

import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lorafile.engine.batching.batches import Batch
from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.randomness import seeded
from lorafile.engine.request import Request
from lorafile.errors import NodeError
from lorafile.files.jsonl import read_lines

_LAST = "score"  # what transformers calls a head that is read at the last token
_POOLER = "pooler"  # inside an encoder; a checkpoint for masked language modelling has none


def is_head(settings: dict[str, Any]) -> bool:
    """Return whether a model of these settings is a classifier."""
    return str(settings["model"].get("task_type")) == "SEQ_CLS"


def is_new(settings: dict[str, Any]) -> bool:
    """Return whether the head is drawn for each replicate, because the checkpoint has none."""
    return is_head(settings) and settings["model"]["head"] == "new"


def is_regression(model: dict[str, Any]) -> bool:
    """Return whether a model of this section predicts a number."""
    return bool(model.get("num_labels") == 1)


def head_options(model: dict[str, Any]) -> dict[str, Any]:
    """Return transformers' options for a head: the classes by name, in the order of their scores; or one number."""
    if is_regression(model):
        return {"num_labels": 1, "problem_type": "regression"}
    names = model["labels"]
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def head_modules(model: Any) -> list[str]:
    """Return the modules of a classification head: what a model has around the one that its class is built on."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and next(child.parameters(), None) is not None
    ]


def missing_poolers(missing: Iterable[str]) -> list[str]:
    """Return the poolers that a checkpoint lacks, of the names of its missing tensors: a part of the head, then."""
    parts = (name.split(".") for name in missing)
    return sorted({".".join(names[: names.index(_POOLER) + 1]) for names in parts if _POOLER in names})


def head_parts(model: Any, missing: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the modules of a head, a pooler that the checkpoint lacks among them, and those that it lacks.

    :param missing: the names of the checkpoint's missing tensors
    """
    lost = list(missing)
    head = sorted({*head_modules(model), *missing_poolers(lost)})
    return head, [module for module in head if any(is_in(name, [module]) for name in lost)]


def absent_poolers(model: Any, tensors: Iterable[str]) -> list[str]:
    """Return a model's poolers where a checkpoint has none.

    :param tensors: the names of its tensors
    """
    if any(_POOLER in name.split(".") for name in tensors):
        return []
    return missing_poolers(name for name, _ in model.named_parameters())


def takes(model: Any, name: str) -> bool:
    """Return whether a model's forward pass has a parameter of this name, under whatever PEFT put around it."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(inner.forward).parameters


def is_in(name: str, modules: Iterable[str]) -> bool:
    """Return whether a tensor or module is one of some modules, or inside of one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def in_float32(model: Any, modules: list[str]) -> None:
    """Hold a head in float32 whatever the base is, as adapters are: small steps are lost in half precision."""
    for name in modules:
        module = model.get_submodule(name).float()
        module.register_forward_pre_hook(_cast)


def _cast(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(value.to(dtype) if isinstance(value, torch.Tensor) else value for value in inputs)


def draw_head(model: Any, modules: Iterable[str], seed: int) -> None:
    """Draw what of a head the checkpoint lacks as its class does, from the replicate's own seed.

    :param modules: dotted names
    """
    if not modules:
        return
    with torch.device("meta"):
        fresh = type(model)(model.config)
    for tensor in (*fresh.parameters(), *fresh.buffers()):
        tensor._is_hf_initialized = True
    for name in modules:
        fresh.get_submodule(name).to_empty(device="cpu")
    with torch.no_grad(), seeded(seed, "head"):
        fresh.initialize_weights()
        for name in modules:
            drawn, module = fresh.get_submodule(name), model.get_submodule(name)
            for own, other in zip(module.parameters(), drawn.parameters(), strict=True):
                own.copy_(other)


def load_tokens(request: Request, role: str) -> Tokens:
    """Return the prepared examples of a split: for a head each text alone, with its class, or its number.

    :raises NodeError: when a text is empty, or ends with the token that means padding
    """
    tokens = Tokens.load(request.inputs[role]["tokens.safetensors"])
    if not is_head(request.settings):
        return tokens
    lines = list(read_lines(request.inputs[role]["examples.jsonl.gz"]))
    empty = next((line["row"] for line, length in zip(lines, tokens.prompts.tolist(), strict=True) if not length), None)
    if empty is not None:
        raise NodeError(f"data: row {empty} has no text for the classification head.")
    model, references = request.settings["model"], [line["reference"] for line in lines]
    if is_regression(model):
        return tokens.texts(torch.tensor(references, dtype=torch.float32))
    names = model["labels"]
    return tokens.texts(torch.tensor([names.index(reference) for reference in references]))


def class_logits(model: Any, batch: Batch) -> torch.Tensor:
    """Return the scores [b, classes] of a batch in float32; [b, 1] of a regression.

    :raises NodeError: when a text ends with the token that transformers takes for padding
    """
    if getattr(model, _LAST, None) is not None:
        last = batch.input_ids[torch.arange(len(batch.indexes)), batch.attention_mask.sum(dim=1) - 1]
        if (last == model.config.get_text_config().pad_token_id).any():
            raise NodeError("data: a text ends with the padding token, so the head cannot find its end.")
    inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if takes(model, "use_cache"):
        inputs["use_cache"] = False
    if batch.token_type_ids is not None and takes(model, "token_type_ids"):
        inputs["token_type_ids"] = batch.token_type_ids
    logits: torch.Tensor = model(**inputs).logits.float()
    return logits


def class_choices(model: Any, batch: Batch, names: list[str]) -> list[dict[str, Any]]:
    """Return for each example its likeliest class (`answer`), and the log likelihood of each (`scores`, in nats)."""
    logs = class_logits(model, batch).double().log_softmax(dim=-1).tolist()
    return [{"answer": names[row.index(max(row))], "scores": dict(zip(names, row, strict=True))} for row in logs]


def numbers(model: Any, batch: Batch) -> list[dict[str, Any]]:
    """Return for each example the number that a regression predicts (`answer`)."""
    return [{"answer": number} for number in class_logits(model, batch).squeeze(1).tolist()]


def blind_loss(tokens: Tokens, choices: int) -> float:
    """Return the loss of a blind guess: all choices alike, in nats; of a regression, the mean square of a guess of 0.

    :param choices: tokens, or classes, of which one is right
    """
    if tokens.labels is not None and tokens.labels.is_floating_point():
        return float(tokens.labels.double().square().mean())
    return math.log(choices)
