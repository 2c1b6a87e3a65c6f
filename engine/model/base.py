"""The base model: loaded once for all nodes that share it, and proven unchanged after each."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorafile.engine.batching.batches import Batch, collate
from lorafile.engine.batching.tokens import Unit, Units
from lorafile.engine.data.encode import load_tokenizer
from lorafile.engine.model.causality import check_causal
from lorafile.engine.model.fingerprint import fingerprint
from lorafile.engine.model.head import draw_head, is_head, is_new
from lorafile.engine.model.loading import load_model
from lorafile.engine.model.quantized import keep_as_loaded
from lorafile.engine.quiet import quiet_libraries
from lorafile.engine.request import base_identity
from lorafile.errors import NodeError


@dataclass
class Base:
    """A loaded base model.

    :ivar head: the modules of a classification head; `new`: it belongs to each run, and not to the base
    :ivar drawn: those of them that the checkpoint lacks, which are drawn for each run
    """

    model: nn.Module
    tokenizer: Any
    device: torch.device
    fingerprint: tuple[int, ...] = ()
    head: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    new: bool = False

    def draw_head(self, seed: int) -> None:
        """Draw what of the head the checkpoint lacks, from a replicate's own seed."""
        draw_head(self.model, self.drawn, seed)

    @property
    def choices(self) -> int:
        """Among how many tokens, or classes, the model chooses: what a blind guess is of."""
        model: Any = self.model
        return int(model.config.num_labels if self.head else model.get_input_embeddings().weight.shape[0])

    def collate(self, tokens: Units, indexes: list[Unit]) -> Batch:
        """Return some examples as a batch where the model lies, padded on the right."""
        return collate(tokens, indexes, self.padding, self.device)

    @property
    def padding(self) -> int:
        """The token that pads."""
        return self.tokenizer.pad_token_id or 0

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.device.type == "cuda":
            for number in range(torch.cuda.device_count()):
                torch.cuda.synchronize(number)

    def timed(self, work: Callable[[], Any]) -> float:
        """Return the seconds that some work takes, the device synchronized before and after."""
        self.synchronize()
        began = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - began

    def take_fingerprint(self) -> tuple[int, ...]:
        """Return the fingerprint of all that no run may change."""
        return fingerprint(self.model, self.head if self.new else ())

    def check(self) -> None:
        """Prove that the weights are what was loaded: same bytes, no gradient.

        :raises NodeError: when something wrote the base
        """
        touched = [name for name, parameter in self.model.named_parameters() if parameter.grad is not None]
        if touched:
            raise NodeError(f"The base received gradients, although it is frozen: {', '.join(touched[:3])}.")
        if self.take_fingerprint() != self.fingerprint:
            raise NodeError("The base's weights changed during a run that must not change them.")


def load_base(settings: dict[str, Any], paths: dict[str, Any], weights: str | None = None, proven: bool = True) -> Base:
    """Load a base, quantized where its settings say so.

    :param weights: another directory with the weights: a base that was fine-tuned in full
    :param proven: take its fingerprint, so that it can be proven unchanged
    :raises NodeError: when it cannot be loaded, when it sees what follows a token, or when its tokenizer knows more
        words than it has rows for
    """
    from transformers import GenerationConfig

    quiet_libraries()
    model, head, drawn = load_model(weights or paths["model"], settings, paths.get("device_map"))
    tokenizer = load_tokenizer(paths["model"], settings["model"]["trust_remote_code"])
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise NodeError(
            f"model.path: the tokenizer has {len(tokenizer)} tokens but the model has embeddings for {rows}; "
            "they do not match."
        )
    model.requires_grad_(False)
    keep_as_loaded(model)
    # The tokens that end an answer: the tokenizer's own, and those of the model's generation settings.
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
    model.generation_config = GenerationConfig(  # the stored one may hold penalties, which would be in no key
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=sorted({token for token in ends if token is not None}),
        pad_token_id=tokenizer.pad_token_id,
    )
    device = model.get_input_embeddings().weight.device
    if is_head(settings):
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    else:
        check_causal(model, paths.get("model_name", paths["model"]))
    base = Base(model, tokenizer, device, (), tuple(head), tuple(drawn), is_new(settings))
    base.fingerprint = base.take_fingerprint() if proven else ()
    return base


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
        """Lend the base to one node and prove it unchanged afterwards; after any failure it is loaded again."""
        base = self.get(settings, paths)
        try:
            yield base
            base.check()
        except BaseException:
            self.drop()
            raise
