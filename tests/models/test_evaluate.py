"""`lora evaluate`: checkpoints of plain PEFT and transformers, under a study's protocol."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("torch")

from foreign import train_adapter

from lorafile import Study
from lorafile.cli.main import main
from lorafile.errors import LoraError, NodeError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft itself, used here

PROFILED = "[profile]\nwarmup_steps = 1\nsteps = 1\nnew_tokens = 2\nrepeats = 1\n"


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_adapter(tiny_model, rows_file, tmp_path_factory.mktemp("foreign") / "run")


def load(spec_file: Path) -> Study:
    return Study.load(spec_file, spec_file.parent / ".lora")


def own_loss(study: Study, model: Any) -> float:
    """The mean loss of a test token, by PEFT and transformers alone, from the tokens that were prepared."""
    import torch

    from lorafile.engine.batching.tokens import Tokens

    plan = study.plan()
    key = next(iter(plan.graph.splits.values()))["test"]
    tokens = Tokens.load(
        study.state
        / "objects"
        / plan.results[key].outputs["tokens.safetensors"][:2]
        / plan.results[key].outputs["tokens.safetensors"]
    )
    total = count = 0.0
    for index in range(len(tokens)):
        ids, marks = tokens.example(index)
        labels = ids.long().masked_fill(~marks.bool(), -100)
        with torch.inference_mode():
            loss = model(input_ids=ids.long()[None], labels=labels[None]).loss
        number = int(marks[1:].sum())
        total, count = total + float(loss) * number, count + number
    return total / count


def test_a_foreign_adapter_is_evaluated_once_and_agrees_with_peft(
    spec_file: Path, tiny_model: Path, adapter: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    spec_file.write_text(
        spec_file.read_text(encoding="utf-8").replace("[profile]\nenabled = false\n", PROFILED)
        + '[[sweep]]\nname = "bare"\nmethod = ["none"]\n',
        encoding="utf-8",
    )
    study = load(spec_file)
    first = study.evaluate(adapter)
    assert [attempt.outcome for attempt in first.failed] == []
    assert {attempt.kind for attempt in first.applied.attempts} == {"prepare", "predict", "score", "profile"}
    assert first.base == {}, "the base was not evaluated, and is not for this"
    assert first.profile["first_token_seconds"] > 0
    assert first.profile["merged_first_token_seconds"] > 0
    assert "train_step_seconds" not in first.profile, "how it was trained is not known"
    assert not (study.spec.file.parent / "study.lock").exists()
    moved = shutil.copytree(adapter, spec_file.parent / "elsewhere")
    again = study.evaluate(moved)
    assert again.applied.attempts == [], "the same content under another name is not paid for twice"
    assert again.figures == first.figures
    study.apply()
    assert load(spec_file).plan().summary()["undeclared"] == 0
    with_base = study.evaluate(adapter)
    loaded = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    assert with_base.base["test"]["log_loss"] == pytest.approx(own_loss(study, loaded), abs=1e-5)
    tuned = PeftModel.from_pretrained(loaded, str(adapter)).eval()
    assert first.figures["test"]["log_loss"] == pytest.approx(own_loss(study, tuned), abs=1e-5)
    assert first.figures["test"]["log_loss"] < with_base.base["test"]["log_loss"]


def test_a_whole_model_is_evaluated_with_its_own_tokenizer_or_the_bases(
    spec_file: Path, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model), str(adapter)
    ).merge_and_unload()
    merged.save_pretrained(tmp_path / "bare")
    merged.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "whole")
    study = load(spec_file)
    found = [
        study.evaluate(where, splits=("validation", "test"))
        for where in (adapter, tmp_path / "bare", tmp_path / "whole")
    ]
    assert all(one.failed == [] for one in found)
    for split in ("validation", "test"):
        losses = [one.figures[split]["log_loss"] for one in found]
        assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)


def test_what_does_not_fit_is_one_sentence_before_anything_runs(
    spec_file: Path, tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    def other(name: str, **changes: Any) -> Path:
        shape = {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 99,
        }
        model = LlamaForCausalLM(LlamaConfig(**{**shape, **changes}))
        get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / name)
        return tmp_path / name

    study = load(spec_file)
    with pytest.raises(NodeError, match=r"model\.layers\.0\.self_attn\.q_proj is 32 → 32 there and 64 × 64 here"):
        study.evaluate(other("narrow", hidden_size=32))
    with pytest.raises(
        NodeError, match=r"it adapts model\.layers\.2\.self_attn\.q_proj, which the model does not have"
    ):
        study.evaluate(other("deep", num_hidden_layers=3))
    pickled = shutil.copytree(adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(NodeError, match=r"holds pickled weights \(adapter_model\.bin\), which are never loaded"):
        study.evaluate(pickled)
    (tmp_path / "outputs" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(NodeError, match=r"It has checkpoint-5; pass one of them"):
        study.evaluate(tmp_path / "outputs")
    with pytest.raises(NodeError, match="There is no directory"):
        study.evaluate(tmp_path / "nowhere")
    with pytest.raises(LoraError, match="the data have no dev split to evaluate; they have: validation, test"):
        study.evaluate(adapter, splits=("dev",))
    assert not study.state.exists()


def test_an_adapter_that_peft_would_load_in_part_fails(spec_file: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    part = shutil.copytree(adapter, tmp_path / "part")
    tensors = load_file(part / "adapter_model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "layers.0" in name}, part / "adapter_model.safetensors"
    )
    found = load(spec_file).evaluate(part)
    assert "which the adapter does not have" in found.failed[0].message


def test_the_command_shows_a_table_or_json_and_warns_of_another_base(
    spec_file: Path, adapter: Path, tmp_path: Path
) -> None:
    renamed = shutil.copytree(adapter, tmp_path / "renamed")
    config = json.loads((renamed / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "org/another"
    (renamed / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    options = ["--spec", str(spec_file), "--state", str(tmp_path / "state"), "--no-profile"]
    done = CliRunner().invoke(main, ["evaluate", str(renamed), *options])
    assert done.exit_code == 0, done.output
    assert "states that it was trained on org/another" in done.output
    again = CliRunner().invoke(main, ["evaluate", str(adapter), *options, "--json"])
    content = json.loads(again.stdout)
    assert content["ran"] == 0, "where it was trained is not what it computes"
    assert content["figures"]["test"]["log_loss"] > 0
    assert content["warnings"] == []
