"""Attention in blocks of queries: what transformers' sdpa computes, under every mask that a text has."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from architectures_fixture import SMALL, config_of  # noqa: E402
from engine_fixture import Engine  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from lorafile.engine.model.loading import (  # noqa: E402
    BLOCKS,
    attend,
    load_model,
    use_blocks,
)

LENGTH = 150  # two blocks and a part of one


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    sizes = {"n_positions": 256} if kind == "gpt2" else {"max_position_embeddings": 256}
    return AutoModelForCausalLM.from_config(config_of(kind, **sizes), attn_implementation="sdpa").eval()


def computed(model: Any, **inputs: Any) -> list[Any]:
    model.zero_grad()
    logits = model(**inputs, use_cache=False).logits
    seen = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    logits[seen].log_softmax(dim=-1)[:, 0].sum().backward()
    return [logits[seen].detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "phi", "gpt2"])  # groups, a window, widths of 8
@pytest.mark.parametrize("form", ["whole", "right", "left", "packed"])
def test_logits_and_gradients_are_sdpas(kind: str, form: str) -> None:
    model = model_of(kind)
    inputs: dict[str, Any] = {"input_ids": torch.randint(3, 64, (3, LENGTH))}
    if form in ("right", "left"):
        mask = torch.arange(LENGTH)[None] < torch.tensor([[LENGTH], [130], [20]])
        inputs["attention_mask"] = (mask if form == "right" else mask.flip(1)).long()
    if form == "packed":
        inputs["position_ids"] = torch.cat([torch.arange(70), torch.arange(80)])[None].expand(3, -1)
    known = computed(model, **inputs)
    use_blocks(model)
    assert model.config._attn_implementation == BLOCKS
    for ours, theirs in zip(computed(model, **inputs), known, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-5)


def test_a_mask_that_looks_ahead_is_heeded() -> None:
    query, key, value = torch.randn(3, 1, 2, LENGTH, 8)
    mask = torch.rand(1, 1, LENGTH, LENGTH) < 0.5
    ours, _ = attend(torch.nn.Module(), query, key, value, mask)
    theirs = torch.softmax((query @ key.mT / 8**0.5).masked_fill(~mask, -torch.inf), -1) @ value
    torch.testing.assert_close(ours.transpose(1, 2), theirs, rtol=1e-4, atol=1e-5)


def test_a_base_computes_in_blocks_unless_the_spec_names_its_attention(engine: Engine) -> None:
    settings: dict[str, Any] = {"model": {"dtype": "float32", "trust_remote_code": False}, "quantization": None}
    expected = BLOCKS if not torch.cuda.is_available() else "sdpa"
    assert load_model(str(engine.model), settings)[0].config._attn_implementation == expected
    settings["model"]["attn_implementation"] = "sdpa"
    assert load_model(str(engine.model), settings)[0].config._attn_implementation == "sdpa"


def test_a_model_without_sdpa_keeps_its_own_attention() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL), attn_implementation="eager")
    use_blocks(model)
    assert model.config._attn_implementation == "eager"
