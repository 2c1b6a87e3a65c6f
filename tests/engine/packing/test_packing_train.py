"""Runs that are trained together against the same runs alone: curves, files, figures, and how they can end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import Engine  # noqa: E402
from pack_runs_fixture import MIX, Runs, Setting, assert_agree  # noqa: E402

from lorafile.engine.packing.train import _Pack  # noqa: E402
from lorafile.engine.request import Stopped  # noqa: E402
from lorafile.engine.stacking.compatible import NotPackable, training_class  # noqa: E402
from lorafile.engine.training.recorder import RunRecorder  # noqa: E402
from lorafile.files.run_directory import CHECKPOINT  # noqa: E402
from lorafile.specs.tables.train import PACKED_ROW_LENGTH  # noqa: E402


def stopping_at(step: int) -> Callable[[dict[str, Any]], None]:
    def report(progress: dict[str, Any]) -> None:
        if progress.get("step") == step:
            raise Stopped

    return report


def test_a_hundred_steps_together_are_a_hundred_steps_alone(engine: Engine) -> None:
    """In double precision, where rounding is not amplified; short last batches and accumulation among them."""
    runs = Runs(engine)
    mix = [{**one, "max_steps": 100, "gradient_accumulation_steps": 2} for one in MIX[1:4]]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting))
        figures = one[0].figures
        assert figures["packed"] == len(mix)
        assert 0 < figures["seconds"] < figures["pack_seconds"]


def test_runs_of_different_lengths_leave_one_after_another(engine: Engine) -> None:
    runs = Runs(engine)
    mix = [{**one, "max_steps": steps} for one, steps in zip(MIX, (9, 3, 14, 3, 6), strict=True)]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_bases(engine: Engine, quantization: str) -> None:
    runs = Runs(engine, "float32", quantization)
    for one, setting in zip(runs.together(MIX), MIX, strict=True):
        assert_agree(one, runs.alone(setting), 2e-2)


@pytest.mark.parametrize("way", [{"gradient_checkpointing": True}, {"bf16": True}])
def test_other_ways_to_compute(engine: Engine, way: Setting) -> None:
    """Recomputed activations have the same dropout; in bfloat16 the two differ by its rounding."""
    runs = Runs(engine, "float32" if "bf16" in way else "float64")
    mix = [{**one, **way, "max_steps": 6} for one in MIX]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting), 0.1 if "bf16" in way else 1e-8)


def test_packed_text(engine: Engine) -> None:
    runs = Runs(engine, packing=True, format="text", columns={"text": "prompt"}, completion_only_loss=False)
    mix = [{**one, "per_device_train_batch_size": 2} for one in MIX]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting))
        assert "unpacked" not in one[0].figures


def test_examples_packed_into_rows(engine: Engine) -> None:
    """Each run has its own rows, of which a step takes different numbers."""
    runs = Runs(engine)
    rows = {PACKED_ROW_LENGTH: 40, "gradient_accumulation_steps": 2}
    mix = [{**one, **rows, "adapter": {**one["adapter"], "lora_dropout": 0.0}} for one in MIX]
    for one, setting in zip(runs.together(mix), mix, strict=True):
        assert_agree(one, runs.alone(setting))
        apart = runs.alone({name: value for name, value in setting.items() if name != PACKED_ROW_LENGTH})
        assert_agree(one, apart, 1e-6)
    assert training_class(runs.request(mix[0]).settings, "a") != training_class(runs.request({}).settings, "a")


def test_one_that_diverges_leaves_and_the_others_go_on(engine: Engine) -> None:
    runs = Runs(engine)
    wild = {"learning_rate": 1e200, "max_grad_norm": 0.0}
    mix = [MIX[0], wild, MIX[1]]
    one, diverged, other = runs.together(mix)
    assert_agree(one, runs.alone(MIX[0]))
    assert_agree(other, runs.alone(MIX[1]))
    expected, _ = runs.alone(wild)
    assert (diverged[0].outcome, diverged[0].message) == (expected.outcome, expected.message)
    assert diverged[0].outcome == "diverged"
    assert diverged[0].files == ["curve.jsonl.gz"]


def test_all_stop_together_and_go_on_together_or_alone(engine: Engine) -> None:
    """Or were alone before: a checkpoint does not tell how its run was computed."""
    runs = Runs(engine)
    mix = MIX[:4]
    whole = [runs.alone(setting) for setting in mix]
    reports = [lambda _: None, stopping_at(5), lambda _: None, lambda _: None]
    for done, _ in runs.together(mix, "parts", reports):
        assert (done.outcome, done.message) == ("interrupted", "Stopped on request.")
    alone = runs.alone(mix[0], "parts0")
    rest = runs.together(mix[1:4], "other", [stopping_at(3), lambda _: None, lambda _: None])
    assert {done.outcome for done, _ in rest} == {"interrupted"}
    assert_agree(alone, whole[0])
    assert alone[0].figures["resumed_from"] == [5]
    (engine.root / "parts3" / CHECKPOINT).rename(engine.root / "parts3" / "gone")  # this one begins again
    again = runs.together([{}, *mix[1:]], "parts")
    for one, expected, steps in zip(again[1:], whole[1:], ([5], [5], None), strict=True):
        assert_agree(one, expected)
        assert one[0].figures.get("resumed_from") == steps


def test_a_run_that_was_alone_goes_on_with_others(engine: Engine) -> None:
    runs = Runs(engine)
    stopped, _ = runs.alone({**MIX[2], "auto_find_batch_size": True}, "mine0", stopping_at(4))
    assert stopped.outcome == "interrupted"
    one, other = runs.together([MIX[2], MIX[3]], "mine")
    assert one[0].figures["resumed_from"] == [4]
    assert_agree(one, runs.alone(MIX[2]))
    assert_agree(other, runs.alone(MIX[3]))


def test_a_run_whose_micro_batches_did_not_fit_is_cut_among_others(engine: Engine) -> None:
    """Its parts are passes in which the others have no rows; its loss and theirs stay what they were."""
    runs = Runs(engine)
    requests, outs = [runs.request(setting) for setting in MIX[:2]], [runs.out(), runs.out()]
    recorders = [RunRecorder(request, lambda _: None) for request in requests]
    recorders[1].parts = 3  # the one without dropout, which is drawn for each part
    with runs.bases.proven(requests[0].settings, requests[0].paths) as base:
        done = _Pack(base, requests, outs, recorders).train()
    for one, setting in zip(zip(done, outs, strict=True), MIX, strict=False):
        assert_agree(one, runs.alone(setting))
    assert done[1].figures["micro_batch_split"] == 3


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"adapter": {"use_dora": True}}, "more than two matrices"),
        ({"adapter": {"init_lora_weights": "pissa"}}, "stored as another LoRA"),
        ({"adapter": {"init_lora_weights": "mica"}}, "B is not trained"),
        ({"fp16": True}, "one loss scale"),
    ],
)
def test_what_has_to_be_alone_has_no_class(engine: Engine, changed: Setting, why: str) -> None:
    runs = Runs(engine)
    plain = training_class(runs.request({}).settings, "train")
    assert plain
    assert training_class(runs.request(changed).settings, "train") == "", why
    for same in (*MIX, {"max_steps": 3}):
        assert training_class(runs.request(same).settings, "train") == plain
    for other in ({"per_device_train_batch_size": 2}, {"gradient_accumulation_steps": 2}, {"bf16": True}):
        assert training_class(runs.request(other).settings, "train") not in ("", plain)


def test_the_base_is_there_once(engine: Engine) -> None:
    """Whatever their number, adapters bring their own matrices alone."""
    runs = Runs(engine)
    requests = [runs.request(one) for one in MIX]
    recorders = [RunRecorder(request, lambda _: None) for request in requests]
    with runs.bases.proven(requests[0].settings, requests[0].paths) as base:
        weights = {parameter.data_ptr() for parameter in base.model.parameters()}
        pack = _Pack(base, requests, [runs.out() for _ in MIX], recorders)
        pack._stacked(pack._members)
        with pack._stack.attached():
            stacked = {id(matrix) for layer in pack._stack.layers.values() for matrix in (layer.a, layer.b)}
            assert {p.data_ptr() for p in base.model.parameters() if id(p) not in stacked} == weights


def test_a_base_that_draws_has_its_runs_alone(tmp_path: Path, engine: Engine, tiny_model: Path) -> None:
    """Its dropout would be drawn for all at once; nothing is left behind by the try."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    where = tmp_path / "gpt2"
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    ).save_pretrained(where)
    tokenizer.save_pretrained(where)
    engine.model = where
    runs = Runs(engine)
    with pytest.raises(NotPackable, match="dropout"):
        runs.together([{"adapter": {"target_modules": ["c_attn"]}}] * 2)
