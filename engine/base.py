"""The base model: loaded once for all nodes that share it, and proven unchanged after each."""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorafile.engine.encode import load_tokenizer
from lorafile.engine.quiet import quiet_bitsandbytes
from lorafile.engine.request import base_identity
from lorafile.errors import NodeError

_CHUNK = 1 << 22


@dataclass
class Base:
    """A loaded base model."""

    model: nn.Module
    tokenizer: Any
    device: torch.device
    fingerprint: tuple[int, ...]

    def check(self) -> None:
        """Prove that the weights are what was loaded: same bytes, no gradient.

        :raises NodeError: when something wrote the base
        """
        touched = [name for name, parameter in self.model.named_parameters() if parameter.grad is not None]
        if touched:
            raise NodeError(f"The base received gradients, although it is frozen: {', '.join(touched[:3])}.")
        if fingerprint(self.model) != self.fingerprint:
            raise NodeError("The base's weights changed during a run that should leave them alone.")


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Return the tokens that end an answer: the tokenizer's own, and those of the model's generation settings."""
    stored = getattr(model, "generation_config", None)
    ends = stored.eos_token_id if stored is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})


def load_base(settings: dict[str, Any], paths: dict[str, Any], weights: str | None = None, proven: bool = True) -> Base:
    """Load a base, quantized where its settings say so.

    :param weights: another directory with the weights: a base that was fine-tuned in full
    :param proven: take its fingerprint, so that it can be proven unchanged
    :raises NodeError: when it cannot be loaded, or its tokenizer knows more words than it has rows for
    """
    from transformers import GenerationConfig

    quiet_bitsandbytes()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trusted = settings["model"]["trust_remote_code"]
    model = _load(weights or paths["model"], settings, device, trusted)
    tokenizer = load_tokenizer(paths["model"], trusted)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise NodeError(
            f"model.path: the tokenizer knows {len(tokenizer)} tokens but the model has embeddings for {rows}; "
            "they do not belong together."
        )
    model.requires_grad_(False)
    _keep_off_repacking(model)
    model.generation_config = GenerationConfig(  # the stored one may hold penalties, which would be in no key
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_tokens(model, tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    return Base(model, tokenizer, device, fingerprint(model) if proven else ())


def _load(path: str, settings: dict[str, Any], device: torch.device, trusted: bool) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    dtype = getattr(torch, settings["model"]["dtype"])
    options: dict[str, Any] = {
        "dtype": dtype,
        "local_files_only": True,
        "trust_remote_code": trusted,
        "use_safetensors": True,
    }
    quantization = settings["quantization"]
    if quantization is not None:
        config = {key: value for key, value in quantization.items() if value is not None}
        config.setdefault("bnb_4bit_compute_dtype", dtype)
        options |= {"quantization_config": BitsAndBytesConfig(**config), "device_map": {"": device}}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(path, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise NodeError(f"model.path: {path} cannot be loaded: {_first_line(error)}") from error
    return model if quantization is not None else model.to(device)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _keep_off_repacking(model: nn.Module) -> None:
    """Keep bitsandbytes' 4-bit layers off the CPU inference path that repacks weights in place (seen in 0.50.2).

    It changes the weights' layout and computes in bfloat16, so that a loss depends on what ran before, and it refuses
    widths that its block does not divide.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (no attribute that torch knows of)


def fingerprint(model: nn.Module) -> tuple[int, ...]:
    """Return two sums over the bits of each parameter and buffer; any changed or swapped value changes them.

    Computed on the device in pieces, so that it costs one read of the weights and a few megabytes.
    """
    sums = []
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
            plain = weighted = 0
            for start in range(0, flat.numel(), _CHUNK):
                piece = flat[start : start + _CHUNK].to(torch.int64)
                plain += int(piece.sum())
                weighted += int(
                    (piece * (torch.arange(len(piece), device=piece.device) % 65521 + 1 + start % 65521)).sum()
                )
            sums += [plain, weighted]
    return tuple(sums)


class Bases:
    """Keeps the last base that was asked for, so that consecutive nodes that share it load it once."""

    def __init__(self) -> None:
        self._identity = ""
        self._base: Base | None = None

    def get(self, settings: dict[str, Any], paths: dict[str, Any]) -> Base:
        """Return the base of some settings: the one at hand, or a newly loaded one."""
        identity = base_identity(settings)
        if self._base is None or identity != self._identity:
            self.drop()
            self._base, self._identity = load_base(settings, paths), identity
        return self._base

    def drop(self) -> None:
        """Forget the base."""
        self._base = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextlib.contextmanager
    def proven(self, settings: dict[str, Any], paths: dict[str, Any]) -> Iterator[Base]:
        """Lend the base to one node and prove it unchanged afterwards; after any failure it is loaded anew."""
        base = self.get(settings, paths)
        try:
            yield base
            base.check()
        except BaseException:
            self.drop()
            raise
