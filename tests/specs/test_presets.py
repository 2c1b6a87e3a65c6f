"""Presets are complete studies."""

from pathlib import Path

import pytest

from lorafile.specs import Spec, parse
from lorafile.specs.catalogue import PresetError, preset, preset_names

SIZES = {
    "hyperparameters": 10,
    "lora_vs_full": 6,
    "module_sweep": 6,
    "placement": 7,
    "quantization_sweep": 4,
    "rank_sweep": 5,
}


def load(name: str) -> Spec:
    return parse(preset(name), Path(f"{name}.toml"))


def test_the_presets_are_these() -> None:
    assert preset_names() == sorted(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_preset_is_a_study_with_an_untuned_row(name: str) -> None:
    spec = load(name)
    assert spec.tables.study.seeds == [42, 1337, 2024]
    assert sum(configuration.method != "none" for configuration in spec.configurations) == SIZES[name]
    assert any(configuration.method == "none" for configuration in spec.configurations)


@pytest.mark.parametrize("name", SIZES)
def test_model_and_data_stand_once_each(name: str) -> None:
    text = preset(name)
    assert text.count('path = "builtin:facts-llama"\n') == 1
    assert text.count('path = "builtin:facts"\n') == 1


def test_ranks_are_swept_with_alpha_following() -> None:
    ranks = [configuration.adapter for configuration in load("rank_sweep").configurations if configuration.adapter]
    assert [(lora["r"], lora["lora_alpha"]) for lora in ranks] == [(4, 8), (8, 16), (16, 32), (32, 64), (64, 128)]


def test_each_method_has_rates_of_its_own() -> None:
    rates: dict[str, set[float]] = {}
    for configuration in load("lora_vs_full").configurations:
        if configuration.train:
            rates.setdefault(configuration.method, set()).add(configuration.train.learning_rate)
    assert rates == {"lora": {1e-4, 2e-4, 4e-4}, "full": {1e-5, 2e-5, 4e-5}}


def test_an_unknown_preset_is_told_with_a_near_name() -> None:
    with pytest.raises(PresetError, match='There is no preset "rank-swep"; did you mean "rank_sweep"') as caught:
        preset("rank-swep")
    assert caught.value.exit_code == 64
