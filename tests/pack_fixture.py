"""Adapters alone, as PEFT itself computes them, and the same adapters stacked: losses and gradients to compare."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from lorafile.engine.pack.stack import Factors, Stack, factors_of
from lorafile.engine.randomness import seed_dropout
from lorafile.engine.starting import given_back

IGNORED = -100


@dataclass(frozen=True)
class Slice:
    """One adapter's micro-batch: ids, mask and labels [b, t]."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def random_slice(examples: int, tokens: int, vocabulary: int, seed: int) -> Slice:
    """Return rows of which the first is padded on the right."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (examples, tokens), generator=drawn)
    mask = torch.ones_like(ids)
    mask[0, tokens - tokens // 3 :] = 0
    return Slice(ids, mask, ids.masked_fill(mask == 0, IGNORED))


def _losses(model: Any, rows: Slice) -> torch.Tensor:
    """Return the negative log likelihood of each row."""
    logits = model(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False).logits[:, :-1]
    labels = rows.labels[:, 1:]
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED)
    return each.view_as(labels).sum(dim=1)


def alone(base: Any, config: Any, rows: Slice, seed: int) -> tuple[Factors, float, dict[str, torch.Tensor]]:
    """Return an adapter's matrices, and its loss and gradients as PEFT computes them."""
    from peft import get_peft_model

    with given_back(base, {}):
        torch.manual_seed(seed)
        model: Any = get_peft_model(base, config)
        seed_dropout(model, seed, base.device)
        factors = factors_of(model)
        before = {path: generator.get_state() for path, generator in factors.generators.items()}
        loss = _losses(model.train(), rows).sum()
        loss.backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        for path, state in before.items():
            factors.generators[path].set_state(state)
    return factors, loss.item(), found


def together(base: Any, factors: list[Factors], slices: list[Slice]) -> tuple[Stack, list[float]]:
    """Return a stack that holds its gradients, and each slice's loss."""
    b, t = max(len(one.ids) for one in slices), max(one.ids.shape[1] for one in slices)
    whole = Slice(*(torch.zeros(len(slices), b, t, dtype=torch.int64) for _ in range(3)))
    whole.mask[:], whole.labels[:] = 1, IGNORED
    for number, one in enumerate(slices):
        examples, tokens = one.ids.shape
        whole.mask[number, :examples] = 0
        for to, given in ((whole.ids, one.ids), (whole.mask, one.mask), (whole.labels, one.labels)):
            to[number, :examples, :tokens] = given
    stack = Stack(base, factors, trained=True)
    stack.rows = [tuple(one.ids.shape) for one in slices]
    base.train()
    with stack.attached():
        rows = Slice(whole.ids.flatten(0, 1), whole.mask.flatten(0, 1), whole.labels.flatten(0, 1))
        losses = _losses(base, rows).view(len(slices), b).sum(dim=1)
        losses.sum().backward()
    base.eval()
    return stack, losses.tolist()


def gradients(stack: Stack, number: int) -> dict[str, torch.Tensor]:
    """Return the gradients of one adapter of a stack under PEFT's names."""
    flat = [flat.gradients[number] for flat in stack.flats if flat.gradients is not None]
    return {
        f"base_model.model.{path}.lora_{side}.default.weight": matrix
        for path, pair in stack.cut(number, flat).items()
        for side, matrix in zip("AB", pair, strict=True)
    }


def assert_agree(base: Any, configs: list[Any], slices: list[Slice], tolerance: float) -> None:
    """Check that the loss and each gradient of each adapter are those that PEFT computes alone."""
    expected = [alone(base, *one) for one in zip(configs, slices, range(len(slices)), strict=True)]
    stack, losses = together(base, [factors for factors, _, _ in expected], slices)
    for number, (loss, (_, wanted, theirs)) in enumerate(zip(losses, expected, strict=True)):
        assert abs(loss - wanted) <= tolerance * abs(wanted), (number, loss, wanted)
        ours = gradients(stack, number)
        assert ours.keys() == theirs.keys()
        size = float(torch.stack([gradient.norm() for gradient in theirs.values()]).norm())
        for name, gradient in theirs.items():  # each as a part of one gradient: that of a query may be next to nothing
            apart = float((ours[name] - gradient).norm())
            assert apart <= tolerance * size, (number, name, apart / size)
