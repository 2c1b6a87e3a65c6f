"""The engine against independent sources: transformers' own loss, plain PEFT, torch's own optimizer arithmetic."""

import itertools
import math
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine  # noqa: E402

from lorafile.engine.batching.batches import by_length, collate, collate_prompts, epoch_order  # noqa: E402
from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.engine.model.base import fingerprint  # noqa: E402
from lorafile.engine.model.loss import summed_loss  # noqa: E402
from lorafile.engine.nodes.train import total_steps  # noqa: E402
from lorafile.engine.randomness import SeededDropout  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402


def test_loss_equals_transformers_own_on_the_same_tokens(engine: Engine) -> None:
    from transformers import AutoModelForCausalLM

    prepared = engine.prepare()
    model = AutoModelForCausalLM.from_pretrained(engine.model)
    tokens = Tokens.load(prepared["tokens.safetensors"])
    batch = collate(tokens, list(range(8)), 3, torch.device("cpu"))
    labels = batch.input_ids.masked_fill(~batch.supervised, -100)
    theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    ours = summed_loss(model, batch) / batch.supervised.sum()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    rows = engine.predict(engine.prepare(8), None)
    predicted = -sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows)
    assert predicted == pytest.approx(theirs.item(), abs=1e-5)


def test_predictions_do_not_depend_on_the_batch(engine: Engine) -> None:
    prepared = engine.prepare()
    alone, together = engine.predict(prepared, None, size=1), engine.predict(prepared, None, size=16)
    for one, other in zip(alone, together, strict=True):
        assert one["log_likelihood"] == pytest.approx(other["log_likelihood"], abs=1e-4)
    assert engine.predict(prepared, None, "generation", size=1) == engine.predict(prepared, None, "generation", size=16)


def test_greedy_answers_are_the_arg_max_of_plain_transformers(engine: Engine) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prepared = engine.prepare(4)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(engine.model), AutoTokenizer.from_pretrained(engine.model)
    answers = engine.predict(prepared, None, "generation")
    for row in answers:
        ids = tokenizer(f"where does anna number {row['row']} live ?", return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(3):
            best = model(ids).logits[0, -1].argmax()
            ids = torch.cat([ids, best[None, None]], dim=1)
            if int(best) == tokenizer.eos_token_id:
                break
        assert row["answer"] == tokenizer.decode(ids[0, start:], skip_special_tokens=True)


def test_prompt_tokens_are_not_supervised_and_the_end_is(engine: Engine) -> None:
    tokens = Tokens.load(engine.prepare(1)["tokens.safetensors"])
    ids, marks = tokens.example(0)
    assert int(ids[-1]) == 2, "the end token closes the answer"
    assert marks.tolist() == [0] * (len(ids) - 2) + [1, 1], "the answer of one word, and the end"
    everything = Tokens.load(engine.prepare(1, completion_only_loss=False)["tokens.safetensors"])
    assert everything.example(0)[1].tolist() == [0] + [1] * (len(ids) - 1)


def test_steps_see_the_same_examples_however_they_are_split(engine: Engine) -> None:
    """22 rows of unlike length, so that the last step of an epoch is a partial one; two epochs."""
    prepared, curves = engine.prepare(22), []
    for size, accumulated in ((8, 1), (2, 4), (4, 2), (3, 1)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated}
        done, files = engine.train(prepared, max_steps=6, **split)
        assert done.outcome == "done", done.message
        curves.append([row["loss"] for row in read_lines(files["curve.jsonl.gz"])])
    whole, quarters, halves, another = curves
    assert quarters == pytest.approx(whole, abs=1e-5)
    assert halves == pytest.approx(whole, abs=1e-5)
    assert another != pytest.approx(whole, abs=1e-2), "which examples a step sees can be told by its loss"


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(engine: Engine) -> None:
    prepared = engine.prepare()
    weights = [
        Path(engine.train(prepared, {**LORA, "lora_dropout": 0.2}, seed)[1]["adapter_model.safetensors"]).read_bytes()
        for seed in (1, 1, 2)
    ]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_other_draws_in_the_process_do_not_reach_an_adapter(engine: Engine) -> None:
    prepared = engine.prepare()
    first = engine.train(prepared, {**LORA, "lora_dropout": 0.2})[1]["adapter_model.safetensors"]
    torch.rand(7)
    second = engine.train(prepared, {**LORA, "lora_dropout": 0.2})[1]["adapter_model.safetensors"]
    assert Path(first).read_bytes() == Path(second).read_bytes()


def test_accumulation_is_normalised_by_supervised_tokens(engine: Engine) -> None:
    """Answers differ in length: four micro-batches of 4 must step as one batch of 16 does."""
    from safetensors.torch import load_file

    prepared = engine.prepare()
    whole = load_file(
        engine.train(prepared, max_steps=1, per_device_train_batch_size=16)[1]["adapter_model.safetensors"]
    )
    parts = load_file(
        engine.train(prepared, max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=4)[1][
            "adapter_model.safetensors"
        ]
    )
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("extra", [{}, {"use_rslora": True}, {"use_dora": True}, {"layers_to_transform": [1]}])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21's own
def test_adapters_load_in_plain_peft_with_the_same_logits(engine: Engine, extra: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    prepared = engine.prepare()
    done, files = engine.train(prepared, {**LORA, **extra})
    assert done.outcome == "done", done.message
    base = AutoModelForCausalLM.from_pretrained(engine.model)
    plain = PeftModel.from_pretrained(base, str(Path(files["adapter_model.safetensors"]).parent)).eval()
    ours = engine.predict(prepared, files)
    tokens = Tokens.load(prepared["tokens.safetensors"])
    for index, row in enumerate(ours):
        batch = collate(tokens, [index], 3, torch.device("cpu"))
        with torch.no_grad():
            assert -summed_loss(plain, batch).item() == pytest.approx(row["log_likelihood"], abs=1e-4)
    if "layers_to_transform" in extra:
        assert all(".layers.1." in name for name, _ in plain.named_parameters() if "lora_" in name)


def test_full_fine_tuning_changes_its_own_copy_alone(engine: Engine) -> None:
    prepared = engine.prepare()
    before = engine.predict(prepared, None)
    done, files = engine.train(prepared, {"method": "full"}, learning_rate=1e-3)
    assert done.figures["trainable_parameters"] == done.figures["total_parameters"]
    tuned = engine.predict(prepared, files)
    assert sum(row["log_likelihood"] for row in tuned) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None) == before


@pytest.mark.parametrize("quantization", ["int8", "nf4", "fp4"])
def test_quantized_bases_train_and_stay_what_they_were(engine: Engine, quantization: str) -> None:
    prepared = engine.prepare()
    before = engine.predict(prepared, None, quantization=quantization)
    done, files = engine.train(prepared, quantization=quantization, max_steps=8)
    assert done.outcome == "done", done.message
    after = engine.predict(prepared, files, quantization=quantization)
    assert sum(row["log_likelihood"] for row in after) > sum(row["log_likelihood"] for row in before)
    assert engine.predict(prepared, None, quantization=quantization) == before
    single = engine.predict(prepared, files, quantization=quantization, size=1)
    for one, other in zip(single, after, strict=True):
        assert one["log_likelihood"] == pytest.approx(other["log_likelihood"], abs=2e-3), "a loss depends on its batch"


def test_a_base_that_was_written_is_noticed(engine: Engine) -> None:
    settings = {"model": MODEL, "quantization": None}
    with (
        pytest.raises(Exception, match="changed during a run"),
        engine.bases.proven(settings, {"model": str(engine.model)}) as base,
        torch.no_grad(),
    ):
        next(iter(base.model.parameters())).view(-1)[5] += 1e-6


def test_fingerprints_see_swapped_values() -> None:
    layer = torch.nn.Linear(8, 8)
    before = fingerprint(layer)
    with torch.no_grad():
        layer.weight[[0, 1]] = layer.weight[[1, 0]]
    assert fingerprint(layer) != before


def test_divergence_is_an_outcome(engine: Engine) -> None:
    done, files = engine.train(engine.prepare(), {"method": "full"}, learning_rate=1e30, max_steps=60)
    assert done.outcome == "diverged", [row["loss"] for row in read_lines(files["curve.jsonl.gz"])][::6]
    assert "step" in done.message
    assert "adapter_model.safetensors" not in files
    assert list(read_lines(files["curve.jsonl.gz"]))


def test_the_schedule_is_transformers_own(engine: Engine) -> None:
    _, files = engine.train(
        engine.prepare(), max_steps=10, warmup_steps=0.2, lr_scheduler_type="cosine", learning_rate=1e-3
    )
    rates = [row["learning_rate"] for row in read_lines(files["curve.jsonl.gz"])]
    expected = [1e-3 * (step / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 8))) for step in range(10)]
    assert rates == pytest.approx(expected)


def test_every_example_comes_once_in_an_epoch_whatever_the_bucket() -> None:
    lengths = [n % 7 + 1 for n in range(333)]
    order = epoch_order(lengths, 4, seed=3, epoch=0)
    assert sorted(index for batch in order for index in batch) == list(range(333))
    assert order != epoch_order(lengths, 4, seed=3, epoch=1)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in order)
    assert padded < 1.2 * sum(lengths)
    assert by_length(lengths, 4)[0] == [6, 13, 20, 27]


def test_steps_count_a_partial_group_as_transformers_does() -> None:
    settings = {
        "max_steps": -1,
        "num_train_epochs": 2.0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 3,
    }
    assert total_steps(30, settings) == 2 * math.ceil(math.ceil(30 / 4) / 3)


def test_prompts_are_padded_on_the_left(engine: Engine) -> None:
    tokens = Tokens.load(engine.prepare(8)["tokens.safetensors"])
    batch = collate_prompts(tokens, [0, 1], 3, torch.device("cpu"))
    assert batch.attention_mask[:, -1].all()


def test_seeded_dropout_keeps_the_mean_and_draws_its_own() -> None:
    generator = torch.Generator().manual_seed(5)
    dropout = SeededDropout(0.25, generator).train()
    out = dropout(torch.ones(100_000))
    assert set(out.unique().tolist()) == {0.0, 4 / 3} or out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout.eval()(torch.ones(5)), torch.ones(5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"max_length": 5}, "tokens, more than 5"),
        ({"columns": {"prompt": "instruction"}}, 'has no column "instruction"'),
        ({"rows": {"seed": None, "start": 0, "stop": 0}}, "split is empty"),
        ({"template": {"prompt": "{prompt}", "completion": "{nowhere}"}}, 'no column "nowhere"'),
        ({"format": "chat"}, 'no column "messages"'),
    ],
)
def test_data_that_cannot_be_prepared_say_why(engine: Engine, data: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(message)):
        engine.prepare(**data)


def test_a_tokenizer_of_another_model_is_refused(engine: Engine, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    other = tmp_path / "other"
    LlamaForCausalLM(
        LlamaConfig(vocab_size=100, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(other)
    AutoTokenizer.from_pretrained(engine.model).save_pretrained(other)
    prepared = engine.prepare()
    engine.model = other
    done, _ = engine.train(prepared)
    assert done.outcome == "failed"
    assert "do not match" in done.message


def profiled(engine: Engine, repeats: int, adapter: dict[str, Any] = LORA) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a profile, and its figures."""
    protocol = {"warmup_steps": 1, "steps": 2, "new_tokens": 3, "repeats": repeats}
    training = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": False,
    }
    settings = {"model": MODEL, "quantization": None, "adapter": adapter, "training": training, "profile": protocol}
    done, _ = engine.run("profile", settings, {"train": engine.prepare()})
    assert done.outcome == "done", done.message
    return settings, done.figures


def test_a_profile_measures_every_phase(engine: Engine) -> None:
    settings, figures = profiled(engine, 2)
    weights = sum(p.numel() * 4 for p in engine.bases.get(settings, {"model": str(engine.model)}).model.parameters())
    assert figures["load_allocated_bytes"] == pytest.approx(weights, rel=0.02)
    assert figures["train_allocated_bytes"] > weights < figures["evaluate_allocated_bytes"]
    for name in (
        "train_step_seconds",
        "tokens_per_second",
        "first_token_seconds",
        "merged_first_token_seconds",
        "train_reserved_bytes",
    ):
        assert figures[name] > 0


def test_a_profile_tells_how_far_times_of_the_same_work_lie_apart(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.cycle([1.0, 2.0, 3.0, 4.0, 10.0])
    monkeypatch.setattr("lorafile.engine.model.base.Base.timed", lambda _, work: (work(), next(clock))[1])
    _, figures = profiled(engine, 5)
    wanted = scipy.stats.iqr([1, 2, 3, 4, 10]) / 3
    assert figures["generate_spread"] == figures["merged_generate_spread"] == pytest.approx(wanted)
    assert "generate_spread" not in profiled(engine, 1)[1], "one time alone tells nothing"


def test_the_bare_base_is_timed_in_turns_with_the_adapter(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any layer of PEFT's; and the adapter is attached again afterwards."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from lorafile.engine.nodes import profile

    adapted: list[bool] = []
    real = profile.generate

    def generate(base: Any, model: Any, *rest: int) -> Any:
        adapted.append(any(isinstance(module, BaseTunerLayer) for module in model.modules()))
        return real(base, model, *rest)

    monkeypatch.setattr(profile, "generate", generate)
    _, figures = profiled(engine, 2)
    assert adapted == [True, False] * 5 + [False] * 5, "a warm-up, two first tokens, two answers; then all merged"
    assert figures["base_generate_seconds"] > figures["base_first_token_seconds"] > 0
    assert figures["base_generate_spread"] >= 0
    assert "base_generate_allocated_bytes" not in figures, "the adapter's memory is there meanwhile"


def test_without_an_adapter_the_model_is_its_own_yardstick(engine: Engine) -> None:
    _, figures = profiled(engine, 2, {"method": "none"})
    assert "merged_generate_seconds" not in figures
    for name in ("first_token_seconds", "generate_seconds", "generate_spread"):
        assert figures[f"base_{name}"] == figures[name]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_changes_memory_and_not_the_result(engine: Engine, dropout: float) -> None:
    from safetensors.torch import load_file

    prepared, adapter = engine.prepare(), {**LORA, "lora_dropout": dropout}
    plain = load_file(engine.train(prepared, adapter)[1]["adapter_model.safetensors"])
    done, files = engine.train(prepared, adapter, gradient_checkpointing=True)
    assert done.outcome == "done", done.message
    checkpointed = load_file(files["adapter_model.safetensors"])
    for name, tensor in plain.items():
        torch.testing.assert_close(checkpointed[name], tensor, atol=1e-5, rtol=1e-4)


def test_answers_begin_after_the_whole_prompt_whatever_is_supervised(engine: Engine) -> None:
    masked = engine.predict(engine.prepare(4), None, "generation")
    assert engine.predict(engine.prepare(4, completion_only_loss=False), None, "generation") == masked


def test_the_end_is_learned_and_an_answer_stops_there(engine: Engine) -> None:
    prepared = engine.prepare(16)
    _, files = engine.train(prepared, {"method": "full"}, max_steps=60, learning_rate=1e-2, warmup_steps=0.1)
    rows = engine.predict(prepared, files, "generation")
    right = [
        row for row in rows if len(row["reference"].split()) < 3 and row["answer"].strip() == row["reference"].strip()
    ]
    assert len(right) >= 4, rows


@pytest.mark.parametrize("precision", [{"bf16": True}, {"fp16": True}])
def test_autocast_trains(engine: Engine, precision: dict[str, bool]) -> None:
    done, _ = engine.train(engine.prepare(), max_steps=8, **precision)
    assert done.outcome == "done", done.message


def test_adapters_are_float32_over_a_half_precision_base(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    monkeypatch.setitem(MODEL, "dtype", "bfloat16")
    done, files = engine.train(engine.prepare())
    assert done.outcome == "done", done.message
    assert {tensor.dtype for tensor in load_file(files["adapter_model.safetensors"]).values()} == {torch.float32}


def test_running_out_of_memory_is_an_outcome(engine: Engine) -> None:
    """A real one: the allocator is asked for more than any machine has."""
    prepared = engine.prepare()
    done, _ = engine.train(prepared, {**LORA, "r": 2**42})
    assert done.outcome == "out-of-memory", done.message


def test_a_disk_that_fails_while_safetensors_writes_is_told_with_its_place(engine: Engine) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    prepared = engine.prepare()
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))  # PEFT's README.md is smaller
    try:
        done, _ = engine.train(prepared, {**LORA, "r": 256})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.outcome == "failed"
    assert done.message.startswith(f"The disk that holds {engine.root / '2'} is failing: File too large.")
