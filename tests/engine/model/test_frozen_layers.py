"""What frozen layers cost: nothing is kept of those below the first adapter, and of the base there is one copy."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from lorafile.engine.model.adapters import checkpointed, new_adapter  # noqa: E402
from lorafile.engine.model.base import Base, load_base  # noqa: E402
from lorafile.engine.model.peak_memory import LiveTensors  # noqa: E402
from lorafile.engine.request import Request  # noqa: E402
from lorafile.engine.stacking.stack import Factors, Stack, factors_of  # noqa: E402

IDS = torch.arange(4, 36).view(2, 16)


@pytest.fixture
def base(tiny_model: Path) -> Base:
    settings = {"model": {"dtype": "float32", "trust_remote_code": False}, "quantization": None}
    return load_base(settings, {"model": str(tiny_model)})


def request(**adapter: Any) -> Request:
    lora = {"method": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **adapter}
    return Request("key", "train", "address", {"model": {}, "adapter": lora, "training": {}, "seed": 1}, {})


def kept_and_graphs(base: Base, model: Any) -> tuple[int, list[bool]]:
    """Return the bytes that a forward pass keeps for its backward pass, and which layers' outputs have a graph."""
    kept: dict[int, int] = {}
    graphs: list[bool] = []
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = [
        layer.register_forward_hook(lambda _, __, output: graphs.append(output.grad_fn is not None))
        for layer in base.model.model.layers
    ]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = model(input_ids=IDS, use_cache=False).logits
        logits.sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    return sum(kept.values()), graphs


@pytest.mark.parametrize("recompute", [False, True])
def test_layers_below_the_first_adapter_have_no_graph(base: Base, recompute: bool) -> None:
    with new_adapter(base, request(layers_to_transform=[1]), None, 1) as model, checkpointed(model.train(), recompute):
        _, graphs = kept_and_graphs(base, model)
    assert graphs[:2] == [False, True]


def test_they_keep_nothing_for_the_backward_pass(base: Base) -> None:
    with new_adapter(base, request(layers_to_transform=[1]), None, 1) as model:
        upper, _ = kept_and_graphs(base, model.train())
    with new_adapter(base, request(), None, 1) as model:
        both, _ = kept_and_graphs(base, model.train())
    assert upper < 0.6 * both


def factors(base: Base, **adapter: Any) -> Factors:
    with new_adapter(base, request(**adapter), None, 1) as model:
        return factors_of(model)


def test_layers_below_the_first_of_several_adapters_have_no_graph(base: Base) -> None:
    stack = Stack(base.model, [factors(base, layers_to_transform=[1]) for _ in range(2)], trained=True)
    with stack.attached():
        _, graphs = kept_and_graphs(base, base.model)
    assert graphs == [False, True]


def test_many_adapters_hold_one_base(base: Base) -> None:
    """Four on one token each: what is live next to the base is theirs, and far less than another base."""
    weights = sum(parameter.nbytes for parameter in base.model.parameters())
    with LiveTensors(base.model) as live:
        stack = Stack(base.model, [factors(base) for _ in range(4)], trained=True)
        with stack.attached():
            base.model(input_ids=IDS[:1, :1].repeat(4, 1), use_cache=False).logits.sum().backward()
    assert weights < live.peak < 2 * weights
