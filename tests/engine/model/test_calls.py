"""Layers that an adapter would sit on in vain: never called, or called on one device and not on another."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from architectures_fixture import config_of  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from lorafile.engine.model.calls import lent_layers, uncalled_layers  # noqa: E402


def on_meta(name: str) -> tuple[Any, list[str]]:
    """Return a model of a row without bytes, and its linear layers inside blocks."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(name))
    layers = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return model, [name for name in layers if any(part.isdigit() for part in name.split("."))]


def leaves(names: list[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize(
    ("name", "quantized", "expected"),
    [
        ("llama", False, set()),
        ("mixtral", False, set()),  # whose experts are stood in for
        ("mamba", False, {"dt_proj"}),
        ("mamba", True, {"dt_proj"}),
        ("jamba", False, {"dt_proj"}),
        ("jamba", True, set()),  # which calls it where it is quantized
    ],
)
def test_a_layer_whose_weight_is_read_counts_as_uncalled(name: str, quantized: bool, expected: set[str]) -> None:
    assert leaves(uncalled_layers(*on_meta(name), quantized)) == expected


def test_a_forward_pass_that_asks_for_values_counts_every_layer_as_called(monkeypatch: pytest.MonkeyPatch) -> None:
    model, layers = on_meta("mamba")
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids, **_: [self] * input_ids.tolist()[0][0])
    assert uncalled_layers(model, layers) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", set()),
        ("falcon", set()),  # reads the type of a weight
        ("bloom", set()),  # cuts a weight, where it was trained in parts
        ("bamba", {"out_proj"}),
        ("mamba", {"x_proj", "dt_proj", "out_proj"}),
    ],
)
def test_a_weight_that_a_kernel_gets_is_seen_in_the_source(name: str, expected: set[str]) -> None:
    assert leaves(lent_layers(*on_meta(name))) == expected


def test_eight_bits_read_rows_of_four_dimensions_as_a_matrix() -> None:
    """bitsandbytes alone scales such rows by each other, or fails."""
    from bitsandbytes.nn import Linear8bitLt

    from lorafile.engine.model.quantized import keep_as_loaded

    torch.manual_seed(0)
    layer = Linear8bitLt(16, 24, has_fp16_weights=False, threshold=0.0)
    holder = torch.nn.Sequential(layer).to("cpu").eval()  # which computes in another way than training
    keep_as_loaded(holder)
    rows = torch.randn(2, 1, 5, 16)
    computed = layer(rows)
    assert computed.shape == (2, 1, 5, 24)
    torch.testing.assert_close(computed.flatten(0, 2), layer(rows.flatten(0, 2)))
    torch.testing.assert_close(layer(rows[:, 0]), computed[:, 0])
