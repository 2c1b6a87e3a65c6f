"""`merge`: an adapter written into its base, and how far the merged model is from the attached one."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lorafile.engine.batching.batches import Batch, by_length
from lorafile.engine.batching.tokens import Blocks, Tokens
from lorafile.engine.model.adapters import as_directory, peft_errors, tuned_model
from lorafile.engine.model.base import Base, Bases, load_base
from lorafile.engine.model.head import class_logits, load_tokens
from lorafile.engine.model.loss import supervised_logits
from lorafile.engine.request import Report, Request, Result, examples_at_once
from lorafile.errors import NodeError

_Compared = dict[str, torch.Tensor]


def merge(request: Request, _out: Path, bases: Bases, report: Report) -> Result:
    """Compare logits at the supervised tokens of held-out text: attached as studied, and merged as exported.

    In half precision they differ by rounding alone, as the attached model's own do when a text is in another batch. So
    that difference is measured too: each text by itself, and among others.

    The base that other nodes share is never merged into: the merged model is loaded after the shared one went.
    """
    tokens = load_tokens(request, "data")
    settings = request.settings["merging"]
    with tempfile.TemporaryDirectory(prefix="lorafile-") as directory:
        with tuned_model(bases, request) as (base, model):
            lengths = tokens.lengths()[: settings["examples"]]
            size = max(examples_at_once(request), 2)  # a text that is alone anyway would be in no other batch
            batches = [base.collate(tokens, indexes) for indexes in by_length(lengths, size)]
            rounded, batching = _rounds_as_coarsely(base.model, settings["dtype"]), Differences()
            for number, batch in enumerate(batches):
                attached = _compared(model, batch)
                save_file(attached, Path(directory) / str(number))
                if rounded:
                    batching.add(attached, _one_by_one(base, model, tokens, batch))
                report({"step": number + 1, "steps": 2 * len(batches)})
        bases.drop()
        copy = merged(request.settings, request.paths, request.inputs["adapter"], settings["dtype"])
        differences = Differences()
        for number, batch in enumerate(batches):
            differences.add(load_file(Path(directory) / str(number)), _compared(copy.model, batch))
            report({"step": len(batches) + number + 1, "steps": 2 * len(batches)})
    return Result(figures=differences.figures() | (batching.of_batching() if rounded else {}))


def _rounds_as_coarsely(model: Any, dtype: str) -> bool:
    """Return whether a model computes in half precision, no finer than the type that it is merged in."""
    own: torch.dtype = model.dtype
    return own in (torch.float16, torch.bfloat16) and torch.finfo(own).eps >= torch.finfo(getattr(torch, dtype)).eps


def _one_by_one(base: Base, model: Any, tokens: Tokens | Blocks, batch: Batch) -> _Compared:
    """Return what `_compared` does of a batch, each of its examples in a batch of its own, without padding."""
    each = [_compared(model, base.collate(tokens, [index])) for index in batch.indexes]
    return {name: torch.cat([one[name] for one in each]) for name in each[0]}


def merged(settings: dict[str, Any], paths: dict[str, Any], files: dict[str, str], dtype: str) -> Base:
    """Return a newly loaded base with an adapter merged into it, its weights in a type.

    Each adapted weight is brought to float32, merged there by PEFT, and rounded once. A quantized base is dequantized:
    to the values that the adapter was trained on, not to those that it had before it was quantized.

    :raises NodeError: where PEFT cannot merge the method, or the base cannot be dequantized
    """
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    target = getattr(torch, dtype)
    base = load_base(settings, paths, proven=False)
    dequantize(base.model)
    with as_directory(files) as directory, peft_errors("merge"):
        model = PeftModel.from_pretrained(base.model, directory)
        if model.active_peft_config.is_prompt_learning:
            raise NodeError("merge: a prompt does not change the weights, so there is nothing to merge.")
        for layer in (module for module in model.modules() if isinstance(module, BaseTunerLayer)):
            inner = layer.get_base_layer().to(torch.float32)
            layer.merge()
            inner.to(target)
        with warnings.catch_warnings():  # that all layers are merged already is as it should be
            warnings.simplefilter("ignore")
            whole = model.merge_and_unload()
    for parameter in whole.parameters():  # buffers keep their type: rotary frequencies are float32 in every model
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(target)
    whole.config.dtype = target
    return Base(whole.eval(), base.tokenizer, base.device, ())


def dequantize(model: Any) -> None:
    """Replace quantized layers by linear ones that hold the same values, in place.

    :raises NodeError: where PEFT does not know how
    """
    from peft.utils.integrations import dequantize_module_weight

    for name, module in list(model.named_modules()):
        if not _quantized(module):
            continue
        try:
            with torch.no_grad():
                weight = dequantize_module_weight(module).float()
        except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
            raise NodeError(f"merge: {name}, a {type(module).__name__}, cannot be dequantized: {error}") from error
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias=module.bias is not None, device="meta")
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if module.bias is not None:
            plain.bias = nn.Parameter(module.bias.detach().float(), requires_grad=False)
        model.set_submodule(name, plain)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for mark in ("is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if hasattr(model, mark):
            setattr(model, mark, False)
    model.hf_quantizer = None


def _quantized(module: nn.Module) -> bool:
    """Return whether a layer's weights are packed."""
    weight = getattr(module, "weight", None)
    if hasattr(module, "W_q") or hasattr(module, "qweight"):
        return True
    kinds = (type(module).__module__, type(weight).__module__)
    return weight is not None and any(kind.startswith(("bitsandbytes.", "torchao.")) for kind in kinds)


@torch.inference_mode()
def _compared(model: Any, batch: Batch) -> _Compared:
    """Return logits [s, v] and targets [s]: of the supervised tokens, or of the examples where a head reads them."""
    if batch.labels is not None:
        logits, targets = class_logits(model, batch), batch.labels
    else:
        logits, targets, _ = supervised_logits(model, batch)
    return {"logits": logits.cpu().contiguous(), "targets": targets.cpu()}


class Differences:
    """Sums up how two models' logits differ, batch by batch; of a regression these are the numbers themselves."""

    def __init__(self) -> None:
        self.largest = self.total = 0.0
        self.count = self.agreed = self.tokens = self.moved = 0
        self.losses = [0.0, 0.0]
        self.finite, self.regression = True, False

    def add(self, attached: _Compared, other: _Compared) -> None:
        """Add the logits [s, v] of some tokens; of examples, [b, 1], where targets are numbers."""
        first, second = attached["logits"].double(), other["logits"].double()
        self.finite = self.finite and bool(second.isfinite().all())
        difference = (first - second).abs()
        self.largest = max(self.largest, float(difference.max()))
        self.total += float(difference.sum())
        self.count += difference.numel()
        self.tokens += len(first)
        self.moved += int((difference > 0).any(-1).sum())
        if attached["targets"].is_floating_point():
            self.regression = True
            return
        self.agreed += int((first.argmax(-1) == second.argmax(-1)).sum())
        for side, logits in enumerate((first, second)):
            chosen = logits.log_softmax(-1).gather(1, attached["targets"][:, None])
            self.losses[side] -= float(chosen.sum())

    def figures(self) -> dict[str, Any]:
        """Return the figures; only `finite` says so where merged weights overflow their type."""
        figures: dict[str, Any] = {"tokens": self.tokens, "finite": self.finite}
        if not self.regression:
            figures["log_loss_attached"] = self.losses[0] / self.tokens
        if not self.finite:
            return figures
        figures |= {"max_logit_difference": self.largest, "mean_logit_difference": self.total / self.count}
        if self.regression:
            return figures
        return figures | {
            "log_loss_merged": self.losses[1] / self.tokens,
            "log_loss_difference": (self.losses[1] - self.losses[0]) / self.tokens,
            "argmax_agreement": self.agreed / self.tokens,
        }

    def of_batching(self) -> dict[str, Any]:
        """Return the figures of a change of batch alone.

        The mean is over the tokens that it moves at all: kernels that add up in the same order round the same way, and
        then nothing moves; where they do not, rounding is as large as anywhere else.
        """
        figures: dict[str, Any] = {"batch_moved_tokens": self.moved, "batch_max_logit_difference": self.largest}
        if self.moved:
            figures["batch_mean_logit_difference"] = self.total * self.tokens / self.count / self.moved
        if not self.regression:
            figures["batch_log_loss_difference"] = (self.losses[1] - self.losses[0]) / self.tokens
            figures["batch_argmax_agreement"] = self.agreed / self.tokens
        return figures
