"""Randomness that belongs to one adapter: its start, data order and dropout never draw from the global generator."""

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import nn


def derive(seed: int, purpose: str) -> int:
    """Return an independent seed for one purpose of one replicate."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:7])


@contextlib.contextmanager
def drawn_from(seed: int, purpose: str) -> Iterator[None]:
    """Run code that draws from torch's global generator under a seed of its own; the global state is put back."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, purpose))
        yield


class SeededDropout(nn.Module):
    """Dropout with a generator of its own, so that its draws do not depend on what else the process computes."""

    def __init__(self, p: float, generator: torch.Generator) -> None:
        super().__init__()
        self.p = p
        self.generator = generator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with a share p of its elements zero and the others scaled by 1 / (1 - p), as `nn.Dropout` does."""
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep / (1 - self.p)


def drawn_again(generator: torch.Generator) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of a checkpointed forward pass and of its recomputation: both see the same draws."""
    state = generator.get_state()

    @contextlib.contextmanager
    def again() -> Iterator[None]:
        now = generator.get_state()
        generator.set_state(state)
        try:
            yield
        finally:
            generator.set_state(now)

    return contextlib.nullcontext(), again()


def seed_dropout(model: nn.Module, seed: int, device: torch.device) -> None:
    """Give every dropout of the model's adapters the adapter's own generator."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, "dropout"))
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            for name, dropout in dropouts.items():
                if isinstance(dropout, nn.Dropout):
                    dropouts[name] = SeededDropout(dropout.p, generator)
