"""PEFT's published results as references: names and units, and files that are none."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from spec_fixture import BASE

from lorafile import specs
from lorafile.cli.main import main
from lorafile.errors import LoraError
from lorafile.models.peft_benchmark import published_result, reference_tables

# What method_comparison/MetaMathQA/results/lora--llama-3.2-3B-rank32.json has of what is read (PEFT at 5d602fdb).
RESULT: dict[str, Any] = {
    "run_info": {
        "created_at": "2026-07-15T05:41:18+00:00",
        "experiment_name": "lora/llama-3.2-3B-rank32",
        "train_config": {"model_id": "meta-llama/Llama-3.2-3B", "seed": 0},
        "peft_config": {"peft_type": "LORA", "r": 32, "lora_alpha": 64},
        "error_msg": "",
    },
    "train_info": {
        "accelerator_memory_max": 22292725760,
        "train_time": 941.9589897260084,
        "file_size": 36715216,
        "num_trainable_params": 9175040,
        "status": "success",
        "metrics": [{"step": 5000, "valid accuracy": 0.5}, {"step": 5000, "test accuracy": 0.4783927217589083}],
    },
    "meta_info": {
        "dataset_info": {"metamath": {"sha": "a"}, "gsm8k": {"sha": "b"}},
        "package_info": {"peft-version": "0.19.2.dev0", "peft-commit-hash": "d787f51bbaa196862733ed53c1b7def75b49ab29"},
        "system_info": {"accelerator": "NVIDIA L40S"},
    },
}


def result_file(directory: Path, *change: Any) -> Path:
    """Write a result; `change` is the path of a value, and last the value that it has instead."""
    content, file = deepcopy(RESULT), directory / "result.json"
    if change:
        *path, last, value = change
        part = content
        for name in path:
            part = part[name]
        part[last] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_a_published_result_is_a_reference_of_a_spec(tmp_path: Path) -> None:
    text = reference_tables([str(result_file(tmp_path))])
    (reference,) = specs.parse(BASE + 'evaluate.metrics = ["exact_match"]\n' + text, Path("s.toml")).tables.reference
    assert reference == published_result(tmp_path / "result.json")
    assert reference.n is not None
    assert round(reference.value * reference.n) == 631, "right answers of 1,319"
    assert (reference.name, reference.metric) == ("PEFT lora/llama-3.2-3B-rank32", "exact_match")
    assert reference.settings == {"lora": {"r": 32}}
    assert reference.costs["train_memory_reserved"] == "22.29GB"
    assert reference.costs["trainable_parameters"] == 9175040
    assert reference.costs["train_time"] == "942s"
    assert reference.source.endswith("2026-07-15, peft 0.19.2.dev0 (d787f51bbaa1), seed 0, NVIDIA L40S")


def test_full_fine_tuning_has_no_adapter(tmp_path: Path) -> None:
    assert published_result(result_file(tmp_path, "run_info", "peft_config", None)).settings == {}


def test_the_command_prints_a_table_for_each_file(tmp_path: Path) -> None:
    file = str(result_file(tmp_path))
    done = CliRunner().invoke(main, ["import", "--peft-benchmark", file, file])
    assert (done.exit_code, done.output.count("[[reference]]")) == (0, 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("train_info", "status", "failed"), 'the run has no test accuracy (its status is "failed")'),
        (("train_info", "metrics", [{"valid accuracy": 0.5}]), "the run has no test accuracy"),
        (("train_info", "metrics", [{"test accuracy": 0.5}]), "0.5 is no share of GSM8K's 1,319 test rows"),
        (("train_info", "metrics", [{"test accuracy": 47.8}]), "47.8 is no share of"),
        (("train_info", "file_size", "36MB"), "train_info.file_size: input should be a valid integer"),
        (
            ("meta_info", "dataset_info", {"cat-image-dataset": {}}),
            "is about cat-image-dataset, and not about MetaMathQA",
        ),
        (("run_info", {}), "run_info.created_at: field required"),
    ],
)
def test_what_is_no_finished_result_is_refused(change: tuple[Any, ...], reason: str, tmp_path: Path) -> None:
    with pytest.raises(LoraError) as refused:
        published_result(result_file(tmp_path, *change))
    assert reason in str(refused.value)
    assert "result.json" in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", "no json", "[" * 100_000])
def test_any_other_file_is_refused_in_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(content, encoding="utf-8")
    done = CliRunner().invoke(main, ["import", "--peft-benchmark", str(tmp_path / "r.json")])
    assert done.exit_code == 1
    assert "r.json is not a" in done.output.replace("\n", " ")
    assert "Traceback" not in done.output
    assert CliRunner().invoke(main, ["import", "--peft-benchmark", str(tmp_path / "none.json")]).exit_code == 1
