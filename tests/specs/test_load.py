"""The language: what a spec means, and what is said of one that is wrong."""

import json
from pathlib import Path

import pytest

from lorafile import specs
from lorafile.specs.snapshot import snapshot

BASE = 'study.name = "s"\nmodel.path = "m"\ndata.path = "d"\n'


def parse(text: str, base: str = BASE) -> specs.Spec:
    return specs.parse(base + text, Path("s.toml"))


def names(text: str) -> list[str]:
    return [configuration.name for configuration in parse(text).configurations]


def only(text: str) -> specs.Configuration:
    (configuration,) = parse(text).configurations
    return configuration


# What a spec means


def test_three_lines_are_a_study() -> None:
    configuration = only("")
    assert (configuration.name, configuration.method) == ("lora", "lora")
    assert parse("").tables.study.seeds == [42, 1337, 2024]


def test_the_first_metric_is_the_primary_one() -> None:
    assert parse('evaluate.metrics = ["exact_match", "log_loss"]').primary == "exact_match"
    assert parse('evaluate = { metrics = ["exact_match", "log_loss"], primary = "log_loss" }').primary == "log_loss"


@pytest.mark.parametrize(
    ("written", "alpha"), [('"2r"', 16), ('"r"', 8), ('"0.5r"', 4), ('".25r"', 2), ("3", 3), ("2.5", 2.5)]
)
def test_alpha_is_a_number_or_a_multiple_of_the_rank(written: str, alpha: float) -> None:
    lora = only(f"lora = {{ r = 8, lora_alpha = {written} }}").adapter
    assert lora is not None
    assert lora["lora_alpha"] == alpha


def test_the_untuned_row_has_neither_adapter_nor_training() -> None:
    configuration = only('method = "none"')
    assert configuration.adapter is None
    assert configuration.train is None


def test_a_quantization_is_spelled_out() -> None:
    quantization = only('quantization = "int8"').quantization
    assert quantization is not None
    assert quantization["load_in_8bit"] is True
    assert quantization["llm_int8_threshold"] == 0.0


def test_a_single_layer_is_a_list_of_one() -> None:
    lora = only("lora.layers_to_transform = 3").adapter
    assert lora is not None
    assert lora["layers_to_transform"] == [3]


def test_layer_words_are_kept_for_the_model_to_decide() -> None:
    lora = only('lora.layers_to_transform = "middle-third"').adapter
    assert lora is not None
    assert lora["layers_to_transform"] == "middle-third"


def test_a_byte_order_mark_and_windows_line_ends_are_read() -> None:
    text = "﻿" + (BASE + "[lora]\nr = 9\n").replace("\n", "\r\n")
    assert parse(text, base="").tables.lora.model_dump()["r"] == 9


# Training settings


def rate(text: str, number: int = 0) -> float:
    train = parse(text).configurations[number].train
    assert train is not None
    return train.learning_rate


def test_full_fine_tuning_has_a_rate_of_its_own() -> None:
    assert rate('method = "full"') == 2e-5
    assert rate('method = "full"\nfull.learning_rate = 3e-5') == 3e-5


def test_what_full_does_not_set_comes_from_train() -> None:
    train = only('method = "full"\ntrain.num_train_epochs = 7').train
    assert train is not None
    assert train.num_train_epochs == 7


def test_a_swept_rate_wins_over_the_methods_own() -> None:
    assert rate('full.learning_rate = 3e-5\n[[sweep]]\nmethod = ["full"]\ntrain.learning_rate = [1e-6]') == 1e-6


def test_warmup_ratio_is_the_old_name_of_fractional_steps() -> None:
    old, new = only("train.warmup_ratio = 0.1"), only("train.warmup_steps = 0.1")
    assert old.identity() == new.identity()


def test_swept_warmup_steps_win_over_the_old_name() -> None:
    train = only("train.warmup_ratio = 0.1\n[[sweep]]\ntrain.warmup_steps = [5]").train
    assert train is not None
    assert (train.warmup_steps, train.warmup_ratio) == (5, None)


# Sweeps


def test_lists_multiply() -> None:
    assert len(names("[[sweep]]\nlora.r = [4, 8]\ntrain.learning_rate = [1e-4, 2e-4, 3e-4]")) == 6


def test_zipped_lists_vary_together() -> None:
    text = '[[sweep]]\nzip = ["lora.r", "train.learning_rate"]\nlora.r = [4, 8]\ntrain.learning_rate = [1e-4, 2e-4]'
    assert names(text) == ["r-learning_rate/r=4,learning_rate=0.0001", "r-learning_rate/r=8,learning_rate=0.0002"]


def test_a_zip_multiplies_with_the_rest() -> None:
    zipped = '[[sweep]]\nzip = ["lora.r", "data.max_length"]\nlora.r = [4, 8]\ndata.max_length = [64, 128]\n'
    assert len(names(zipped + "lora.use_dora = [true, false]")) == 4


def test_points_by_hand_have_names_of_their_own() -> None:
    text = '[[sweep]]\nname = "c"\nconfigurations = [{ name = "small", lora.r = 2 }, { lora.r = 64, method = "lora" }]'
    assert names(text) == ["c/small", "c/r=64,method=lora"]


def test_exclude_takes_points_out() -> None:
    product = '[[sweep]]\nmethod = ["lora", "full"]\nquantization = ["none", "nf4"]\n'
    assert len(names(product + 'exclude = [{ method = "full", quantization = "nf4" }]')) == 3


def test_exclude_sees_defaults_too() -> None:
    assert names("[[sweep]]\nlora.r = [4, 8]\nexclude = [{ lora.r = 4, lora.lora_dropout = 0.0 }]") == ["r/r=8"]


def test_sweeps_unite_and_the_first_gives_the_name() -> None:
    text = '[[sweep]]\nname = "a"\nlora.r = [8, 16]\n[[sweep]]\nname = "b"\nlora.use_dora = [false, true]'
    assert [(c.name, c.aliases) for c in parse(text).configurations] == [
        ("a/r=8", ()),
        ("a/r=16", ("b/use_dora=false",)),
        ("b/use_dora=true", ()),
    ]


def test_the_order_of_module_names_makes_no_other_configuration() -> None:
    text = '[[sweep]]\nlora.target_modules = [["q_proj", "v_proj"], ["v_proj", "q_proj"]]'
    assert len(parse(text).configurations) == 1


def test_names_are_made_of_values() -> None:
    text = """
[[sweep]]
lora.target_modules = ["attention", ["q_proj", "v_proj"]]
[[sweep]]
lora.layers_to_transform = [[0, 1, 2, 3], [0, 3], "alternate"]
[[sweep]]
name = "odd"
data.path = ["some/data set.jsonl"]
model.revision = ["a:b"]
[[sweep]]
name = "base"
quantization = [{ load_in_4bit = true, bnb_4bit_quant_type = "nf4" }]
[[sweep]]
name = "both"
model.path = ["m"]
data.path = ["d"]
lora.r = [2]
"""
    assert names(text) == [
        "target_modules/target_modules=attention",
        "target_modules/target_modules=q_proj+v_proj",
        "layers_to_transform/layers_to_transform=0-3",
        "layers_to_transform/layers_to_transform=0+3",
        "layers_to_transform/layers_to_transform=alternate",
        "odd/path=some-data-set.jsonl,revision=a-b",
        "base/quantization=load_in_4bit=true+bnb_4bit_quant_type=nf4",
        "both/model.path=m,data.path=d,r=2",
    ]


# The snapshot


def test_the_snapshot_is_what_is_installed() -> None:
    pytest.importorskip("peft")
    from lorafile.engine import write_snapshot

    for name in write_snapshot.method_configs().values():
        assert snapshot()[name] == json.loads(json.dumps(write_snapshot.peft_fields(name)))
    assert snapshot()["BitsAndBytesConfig"] == json.loads(json.dumps(write_snapshot.bnb_fields()))


def test_the_language_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, lorafile.specs.reference, lorafile.specs.target_modules, lorafile.study.init; "
    code += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
