"""Randomness that belongs to one adapter: its start, data order and dropout never draw from the global generator."""

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

Context = contextlib.AbstractContextManager[None]


def derive(seed: int, purpose: str) -> int:
    """Return an independent seed for one purpose of one replicate."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:7])


def initial_seed(settings: dict[str, Any]) -> int:
    """Return the seed of what a run draws before it trains: `train.init_seed`, or else its own; a profile has none."""
    own = (settings.get("training") or {}).get("init_seed")
    return int(settings.get("seed") or 0) if own is None else int(own)


@contextlib.contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Run code that draws from torch's or Python's global generator under a seed of its own; both are put back."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    before = random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive(seed, purpose))
            random.seed(derive(seed, purpose))
            yield
    finally:
        random.setstate(before)


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


def replayed_draws(generators: list[torch.Generator]) -> tuple[Context, Context]:
    """Return the contexts of a checkpointed forward pass and of its recomputation: both see the same draws."""
    states = [generator.get_state() for generator in generators]

    @contextlib.contextmanager
    def again() -> Iterator[None]:
        now = [generator.get_state() for generator in generators]
        _set(generators, states)
        try:
            yield
        finally:
            _set(generators, now)

    return contextlib.nullcontext(), again()


def _set(generators: list[torch.Generator], states: list[torch.Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)


def seed_dropout(model: nn.Module, seed: int, device: torch.device) -> None:
    """Give every dropout of the model's adapters the adapter's own generator: one for each device that it lies on."""
    generators = {device: torch.Generator(device=device).manual_seed(derive(seed, "dropout"))}
    for module in model.modules():
        for kind, dropouts in module.named_children():  # lora_dropout, vera_dropout
            if not (kind.endswith("_dropout") and isinstance(dropouts, nn.ModuleDict)):
                continue
            place = next((parameter.device for parameter in module.parameters()), device)
            if place not in generators:
                purpose = f"dropout:{len(generators)}"
                generators[place] = torch.Generator(device=place).manual_seed(derive(seed, purpose))
            for name, dropout in dropouts.items():
                if isinstance(dropout, nn.Dropout):
                    dropouts[name] = SeededDropout(dropout.p, generators[place])


def dropout_generators(model: nn.Module) -> list[torch.Generator]:
    """Return the generators that a model's seeded dropouts draw from, each once."""
    generators = {id(m.generator): m.generator for m in model.modules() if isinstance(m, SeededDropout)}
    return list(generators.values())
