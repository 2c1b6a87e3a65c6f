"""What a checkpoint's own classes say of it: its linear layers, its fused experts, its head, and what it lacks.

The model is built by transformers on the meta device, which has shapes and no bytes. Run as a program it reads a
request as JSON (`path`, `task_type`, `trust_remote_code`) and writes a `Description`, so that a plan never imports
torch.
"""

import contextlib
import copy
import json
import os
import sys
import warnings
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from lorafile.engine.data.encode import chat_templates, load_tokenizer, own_end_token
from lorafile.engine.data.hub import first_line
from lorafile.engine.model.calls import lent_layers, uncalled_layers
from lorafile.engine.model.head import head_parts, is_in
from lorafile.engine.model.loading import auto_class, on_meta
from lorafile.engine.model.quantized import stored_quantization
from lorafile.engine.quiet import quiet_libraries
from lorafile.errors import NodeError

_CLASSES = 5  # of a head that is described; one more tells which of its sizes follow the number of classes


@dataclass(frozen=True)
class Description:
    """A model as transformers' classes have it.

    :ivar transformers: the version that made it
    :ivar architecture: the class
    :ivar modules: linear layers that an adapter can be put on, in its text model's blocks: dotted name -> [out, in]
    :ivar experts: parameters that hold a matrix for each expert: dotted name -> [experts, …, …]
    :ivar reserved: other modules whose last name is that of a linear layer: routers, the layers of a vision tower
    :ivar tensors: every other parameter outside the head: dotted name -> shape
    :ivar head: parameters of a classification head: dotted name -> shape; 0 stands for the number of classes
    :ivar chat_template: whether the tokenizer has one
    :ivar prints_date: whether that writes today's date
    :ivar end_token: the model's own, where the tokenizer has none
    :ivar missing: parameters that the checkpoint should hold and does not; `mismatched`: of another shape
    :ivar unexpected: tensors of the checkpoint that no part of the model takes
    """

    transformers: str
    architecture: str = ""
    modules: dict[str, list[int]] = field(default_factory=dict)
    experts: dict[str, list[int]] = field(default_factory=dict)
    reserved: list[str] = field(default_factory=list)
    tensors: dict[str, list[int]] = field(default_factory=dict)
    head: dict[str, list[int]] = field(default_factory=dict)
    chat_template: bool = False
    prints_date: bool = False
    end_token: int | None = None
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


def describe(path: str, task_type: str, trust_remote_code: bool) -> Description:
    """Return the description of a checkpoint.

    :param task_type: `CAUSAL_LM` or `SEQ_CLS`, which decides the class
    :raises Exception: whatever transformers raises for a checkpoint that it does not understand
    """
    import transformers

    classifies = task_type == "SEQ_CLS"
    model, report = _load_on_meta(path, classifies, trust_remote_code)
    missing = sorted(report.get("missing_keys", ()))
    of_head, drawn = head_parts(model, missing) if classifies else ([], [])
    modules = _linear_layers(model, of_head)
    without = (_refused_by_peft(model, modules), uncalled_layers(copy.deepcopy(model), modules))
    for name in {*chain(*without), *lent_layers(model, modules)}:
        del modules[name]
    parameters = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    experts = {name: shape for name, shape in parameters.items() if len(shape) == 3 and "experts" in name.split(".")}
    taken = {*experts, *(f"{name}.weight" for name in modules)}
    return Description(
        transformers=transformers.__version__,
        architecture=type(model).__name__,
        modules=modules,
        experts=experts,
        reserved=_reserved(model, modules),
        tensors={n: s for n, s in sorted(parameters.items()) if n not in taken and not is_in(n, of_head)},
        head=_head_shapes(path, trust_remote_code, of_head) if classifies else {},
        **_about_tokenizer(path, trust_remote_code),
        missing=[name for name in missing if not is_in(name, drawn)],
        mismatched=sorted(row[0] if isinstance(row, tuple) else row for row in report.get("mismatched_keys", ())),
        unexpected=sorted(name for name in report.get("unexpected_keys", ()) if _belongs(name, model)),
    )


def _load_on_meta(path: str, classifies: bool, trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """Return a checkpoint's model without its bytes, and transformers' report of what did not fit.

    A checkpoint that was quantized before holds packed tensors, of which only the classes are looked at; so it is where
    there are no weights at all.
    """
    if stored_quantization(path) is not None or not any(Path(path).glob("*.safetensors")):
        return on_meta(path, classifies, trust_remote_code), {}
    model, report = auto_class(classifies).from_pretrained(
        path,
        trust_remote_code=trust_remote_code,
        device_map={"": "meta"},
        dtype="auto",
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return model, report


def _about_tokenizer(path: str, trust_remote_code: bool) -> dict[str, Any]:
    """Return what a description says of a tokenizer: `chat_template`, `prints_date`, `end_token`."""
    try:
        tokenizer = load_tokenizer(path, trust_remote_code)
    except NodeError:  # `prepare` says it, where it is needed
        return {}
    return {
        "chat_template": bool(tokenizer.chat_template),
        "prints_date": "strftime_now(" in chat_templates(tokenizer, {}),
        "end_token": own_end_token(path) if tokenizer.eos_token_id is None else None,
    }


def _head_shapes(path: str, trust_remote_code: bool, modules: list[str]) -> dict[str, list[int]]:
    """Return the shapes of a head's parameters; 0 stands for the number of classes."""
    shapes = []
    for classes in (_CLASSES, _CLASSES + 1):
        model = on_meta(path, True, trust_remote_code, num_labels=classes)
        shapes.append({name: parameter.shape for name, parameter in model.named_parameters() if is_in(name, modules)})
    first, second = shapes
    return {
        name: [size if size == other else 0 for size, other in zip(shape, second[name], strict=True)]
        for name, shape in first.items()
    }


def _linear_layers(model: Any, without: list[str]) -> dict[str, list[int]]:
    """Return the linear layers in the numbered blocks of a model's text part, with their shapes [out, in].

    Routers are none: what they return is a choice of experts. Nor are gates of one output: their weight is one row.
    """
    from transformers.pytorch_utils import Conv1D

    text = model.get_decoder()
    prefix = next(f"{name}." if name else "" for name, module in model.named_modules() if module is text)
    layers: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        inside = name.startswith(prefix) and any(part.isdigit() for part in name.split("."))
        linear = isinstance(module, (nn.Linear, Conv1D)) and "Router" not in type(module).__name__
        if inside and linear and not is_in(name, without):
            out, into = reversed(module.weight.shape) if isinstance(module, Conv1D) else module.weight.shape
            layers |= {name: [out, into]} if out > 1 else {}
    return layers


def _refused_by_peft(model: Any, modules: dict[str, list[int]]) -> list[str]:
    """Return the linear layers that PEFT puts no LoRA on; those of one name are tried together.

    It refuses some by name (a Mamba's), and takes others for what transformers 4 called so (experts that are one
    tensor now), so that the layer that was named is left without an adapter.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    refused, trial = [], copy.deepcopy(model)
    by_leaf: dict[str, list[str]] = {}
    for name in modules:
        by_leaf.setdefault(name.rpartition(".")[2], []).append(name)
    for number, names in enumerate(by_leaf.values()):
        with contextlib.suppress(ValueError, NotImplementedError, TypeError), warnings.catch_warnings(action="ignore"):
            inject_adapter_in_model(LoraConfig(r=1, target_modules=names), trial, f"trial{number}")
        refused += [name for name in names if not isinstance(trial.get_submodule(name), LoraLayer)]
    return refused


def _reserved(model: Any, modules: dict[str, list[int]]) -> list[str]:
    leaves = {name.rpartition(".")[2] for name in modules}
    others = (name for name, _ in model.named_modules() if name not in modules)
    return sorted(name for name in others if name.rpartition(".")[2] in leaves)


def _belongs(name: str, model: Any) -> bool:
    """Return whether a tensor that a model has no place for lies in a part that it has: a block more than it takes.

    What is outside belongs to another task (the head of a masked language model), and a pooler to none of these.
    """
    base = getattr(model, model.base_model_prefix, model)
    first = name.removeprefix(f"{model.base_model_prefix}.").split(".")[0]
    return first != "pooler" and any(first == child for child, _ in base.named_children())


def answer(path: str, task_type: str, trust_remote_code: bool) -> dict[str, Any]:
    """Return a checkpoint's description as a table, or the `problem` that transformers has with it."""
    import transformers

    quiet_libraries()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        return asdict(describe(path, task_type, trust_remote_code))
    except Exception as error:
        return {"problem": first_line(error), "transformers": transformers.__version__}


def main() -> None:
    """Read a request and write what was found, or the `problem`."""
    request = json.loads(sys.stdin.read())
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a model's own code may print
    stream.write(json.dumps(answer(**request)))
    stream.close()


if __name__ == "__main__":
    main()
