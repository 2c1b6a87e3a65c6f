"""Logits at the supervised tokens alone: transformers' own loss and gradients, for heads of every kind."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from architectures_fixture import ARCHITECTURES, SMALL  # noqa: E402
from peft import LoraConfig, PromptTuningConfig, get_peft_model  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from lorafile.engine.batching.batches import Batch, collate  # noqa: E402
from lorafile.engine.batching.tokens import pack  # noqa: E402
from lorafile.engine.data.encode import Encoded  # noqa: E402
from lorafile.engine.model.loss import likelihoods, summed_loss, supervised_logits  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in ("`is_gradient_checkpointing` is deprecated:FutureWarning", ":UserWarning")
]
HEADS: dict[str, dict[str, Any]] = {  # what a model does with the output of its head
    "llama": SMALL,
    "gpt2": ARCHITECTURES["gpt2"].settings,
    "gemma2": {**ARCHITECTURES["gemma2"].settings, "final_logit_softcapping": 0.5},  # a cap
    "cohere": {**SMALL, "logit_scale": 0.25},  # a factor
    "granite": {**SMALL, "logits_scaling": 4.0},
    "phi": ARCHITECTURES["phi"].settings,  # a bias
    "ctrl": {
        "vocab_size": 64,
        "n_embd": 32,
        "dff": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
    },
}


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**HEADS[kind], "attn_implementation": "eager"})
    return AutoModelForCausalLM.from_config(config).eval()


def ragged() -> Batch:
    """Four rows of different lengths; prompts and answers lie at different places, and one has no answer at all."""
    shapes = [(12, 9), (7, 2), (9, 9), (5, 1)]
    torch.manual_seed(1)
    rows = [torch.randint(3, 64, (length,)).tolist() for length, _ in shapes]
    marks = [[0] * prompt + [1] * (length - prompt) for length, prompt in shapes]
    examples = [Encoded(ids, mark, sum(1 for one in mark if not one)) for ids, mark in zip(rows, marks, strict=True)]
    return collate(pack(examples), list(range(len(examples))), 0, torch.device("cpu"))


def theirs(model: Any, batch: Batch) -> torch.Tensor:
    labels = batch.input_ids.masked_fill(~batch.supervised, -100)
    found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels, use_cache=False)
    return found.loss * batch.targets


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(model: Any, batch: Batch) -> None:
    ours, known = summed_loss(model, batch), theirs(model, batch)
    assert ours.item() == pytest.approx(known.item(), rel=1e-6)
    mine, wanted = gradients(model, ours), gradients(model, known)
    assert mine.keys() == wanted.keys() and mine
    for name, gradient in wanted.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_loss_and_gradients_are_transformers_own(kind: str) -> None:
    same(model_of(kind), ragged())


@pytest.mark.parametrize("place", ["target_modules", "modules_to_save"])
def test_a_head_that_is_trained_has_the_same_gradients(place: str) -> None:
    settings = {
        "target_modules": ["q_proj"],
        place: ["q_proj", "lm_head"] if place == "target_modules" else ["lm_head"],
    }
    config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
    same(get_peft_model(model_of("llama"), config).eval(), ragged())


def test_virtual_tokens_move_what_predicts() -> None:
    same(get_peft_model(model_of("llama"), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")), ragged())


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_reads_nothing_but_what_predicts_a_supervised_token(kind: str) -> None:
    model, batch, seen = model_of(kind), ragged(), []
    model.get_output_embeddings().register_forward_hook(lambda _, __, output: seen.append(output.shape))
    logits, targets, rows = supervised_logits(model, batch)
    assert [shape[:-1].numel() for shape in seen] == [len(logits)] == [batch.targets]
    assert rows.bincount(minlength=4).tolist() == batch.supervised[:, 1:].sum(dim=1).tolist()
    assert targets.tolist() == batch.input_ids[:, 1:][batch.supervised[:, 1:]].tolist()


def test_a_model_without_such_a_head_has_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("llama"), ragged()
    known = theirs(model, batch).item()
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    assert summed_loss(model, batch).item() == pytest.approx(known, rel=1e-6)


def test_the_head_is_left_as_it_was() -> None:
    model, batch = model_of("llama"), ragged()
    before = model(input_ids=batch.input_ids).logits
    likelihoods(model, batch)
    assert torch.equal(model(input_ids=batch.input_ids).logits, before)
