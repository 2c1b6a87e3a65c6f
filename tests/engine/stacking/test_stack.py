"""Adapters on one base together against PEFT's own forward and backward pass of each alone."""

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from pack_fixture import Slice, alone, assert_agree, gradients, random_slice, together  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel  # noqa: E402

from lorafile.engine.model.base import load_base  # noqa: E402
from lorafile.engine.model.fingerprint import fingerprint  # noqa: E402
from lorafile.engine.stacking.compatible import NotPackable  # noqa: E402
from lorafile.engine.stacking.stack import Factors, Stack, factors_of  # noqa: E402
from lorafile.specs.tables.quantizations import quantization_settings  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VOCABULARY = 100


def config(**settings: Any) -> LoraConfig:
    """Return a LoRA of which both matrices begin at random: with B at zero most gradients would be."""
    return LoraConfig(**{"init_lora_weights": False, "task_type": "CAUSAL_LM", "r": 4, **settings})


def slices(*shapes: tuple[int, int]) -> list[Slice]:
    return [random_slice(b, t, VOCABULARY, seed) for seed, (b, t) in enumerate(shapes)]


MIXED = [
    config(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], lora_dropout=0.2),
    config(r=7, lora_alpha=3, target_modules=["v_proj", "down_proj"], use_rslora=True),
    config(r=2, target_modules=["q_proj"], rank_pattern={"q_proj": 5}, alpha_pattern={"q_proj": 9}, lora_dropout=0.5),
    config(r=3, lora_alpha=3, target_modules=list(TARGETS), layers_to_transform=[1], lora_dropout=0.1),
]
SHAPES = ((4, 9), (3, 12), (4, 5), (4, 12))


@pytest.fixture(scope="module")
def llama(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
def test_mixed_adapters_have_the_losses_and_gradients_that_they_have_alone(
    tiny_model: Path, dtype: str, tolerance: float
) -> None:
    """Ranks, alphas, targets, layers, patterns, dropouts, numbers of examples and lengths all differ."""
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype).requires_grad_(False)
    before = fingerprint(base)
    assert_agree(base, MIXED, slices(*SHAPES), tolerance)
    assert fingerprint(base) == before
    assert not any(p.grad is not None for p in base.parameters())


@st.composite
def adapters(draw: st.DrawFn) -> tuple[LoraConfig, tuple[int, int]]:
    targets = draw(st.lists(st.sampled_from(TARGETS), min_size=1, max_size=7, unique=True))
    pattern = draw(st.dictionaries(st.sampled_from(targets), st.integers(1, 12), max_size=2))
    chosen = config(
        r=draw(st.integers(1, 12)),
        lora_alpha=draw(st.integers(1, 40)),
        target_modules=targets,
        rank_pattern=pattern,
        use_rslora=draw(st.booleans()),
        lora_dropout=draw(st.sampled_from([0.0, 0.1, 0.7])),
        layers_to_transform=draw(st.sampled_from([None, [0], [1]])),
    )
    return chosen, (draw(st.integers(1, 4)), draw(st.integers(2, 14)))


@settings(max_examples=12, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(adapters(), min_size=1, max_size=5))
def test_any_mix_agrees(llama: Any, mix: list[tuple[LoraConfig, tuple[int, int]]]) -> None:
    base = llama.double()
    assert_agree(base, [one for one, _ in mix], slices(*(shape for _, shape in mix)), 1e-12)


@pytest.mark.parametrize("name", ["nf4", "fp4", "int8", "hqq4", "torchao-int8"])
def test_quantized_bases_agree(tiny_model: Path, name: str) -> None:
    chosen = {"model": {"dtype": "float32", "trust_remote_code": False}, "quantization": quantization_settings(name)}
    base = load_base(chosen, {"model": str(tiny_model)}, proven=False)
    assert_agree(base.model, MIXED, slices(*SHAPES), 1e-6)


def test_a_base_in_bfloat16_agrees_within_its_rounding(tiny_model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype="bfloat16").requires_grad_(False)
    assert_agree(base, MIXED, slices(*SHAPES), 2e-2)


def test_layers_that_store_their_weight_the_other_way_round_agree() -> None:
    shape = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=32)
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        setattr(shape, name, 0.0)
    base = GPT2LMHeadModel(shape).requires_grad_(False)
    mix = [
        config(target_modules=["c_attn"], fan_in_fan_out=True),
        config(r=2, target_modules=["c_fc"], fan_in_fan_out=True),
    ]
    assert_agree(base, mix, slices((2, 6), (3, 8)), 1e-6)


def test_a_slice_without_an_adapter_is_the_bare_base(llama: Any) -> None:
    base = llama.double().eval()
    (rows,) = slices((3, 7))
    factors, _, _ = alone(base, MIXED[1], rows, 0)
    with torch.inference_mode():
        bare = base(input_ids=rows.ids).logits
        stack = Stack(base, [factors, Factors()])
        with stack.attached():
            found = base(input_ids=torch.cat([rows.ids, rows.ids])).logits
        torch.testing.assert_close(found[3:], bare, rtol=0, atol=1e-12)
        assert not torch.allclose(found[:3], bare)


def test_what_is_padded_stays_zero(llama: Any) -> None:
    """An optimizer that steps over a whole row moves nothing that its adapter does not have."""
    base = llama.float()
    rows = slices(*SHAPES)
    stack, _ = together(base, [alone(base, *one)[0] for one in zip(MIXED, rows, range(4), strict=True)], rows)
    for number in range(4):
        row = stack.row(number)
        torch.optim.AdamW(row.parameters(), lr=0.1, weight_decay=0.1).step()
        held = stack.cut(number, [flat.values[number] for flat in stack.flats])
        kept = sum(int(matrix.count_nonzero()) for pair in held.values() for matrix in pair)
        assert sum(int(flat.values[number].count_nonzero()) for flat in stack.flats) == kept
        assert gradients(stack, number).keys()


@pytest.mark.parametrize(
    "other",
    [
        {"use_dora": True, "target_modules": ["q_proj"]},
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "lora_bias": True},
        {"target_modules": ["o_proj"], "trainable_token_indices": [3]},
    ],
)
def test_what_is_more_than_two_matrices_is_refused(tiny_model: Path, other: dict[str, Any]) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of merging what has a bias
        model = get_peft_model(base, config(**other))
    with pytest.raises(NotPackable):
        factors_of(model)
