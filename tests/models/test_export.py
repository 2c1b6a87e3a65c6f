"""Exports: what plain PEFT and plain transformers load, the card, what vLLM refuses, and what is never overwritten."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from safetensors import safe_open

torch = pytest.importorskip("torch")

from lorafile import Study  # noqa: E402
from lorafile.cli.main import main  # noqa: E402
from lorafile.engine.model.adapters import peft_errors  # noqa: E402
from lorafile.errors import LoraError  # noqa: E402
from lorafile.models import export as exporting  # noqa: E402
from lorafile.state import State  # noqa: E402

MORE = """
[truncate]
ranks = [2]
[[sweep]]
name = "rank"
lora.r = [4, 32]
[[sweep]]
name = "other"
method = ["none", "full"]
[[sweep]]
name = "dora"
lora.use_dora = [true]
lora.r = [4]
"""


def export(study: Study, name: str, out: Path, **options: Any) -> exporting.Exported:
    return exporting.export(study.plan(), State.read(study.state), name, out, exporting.ExportOptions(**options))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> Study:
    """A study that is applied once for all tests."""
    from spec_fixture import BASIC

    file = tmp_path_factory.mktemp("study") / "study.toml"
    file.write_text(BASIC.format(model=tiny_model, data=rows_file) + MORE, encoding="utf-8")
    study = Study.load(file, file.parent / ".lora")
    assert {attempt.outcome for attempt in study.apply().attempts} == {"done"}
    return study


def ids() -> Any:
    return torch.arange(5, 25)[None]


def tuned(directory: Path, base: Path) -> Any:
    """Return the logits of an adapter as plain PEFT loads it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with peft_errors(), torch.no_grad():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), directory)
        return model.eval()(input_ids=ids()).logits


def whole(directory: Path) -> Any:
    """Return the logits of a model as plain transformers loads it."""
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(directory).eval()(input_ids=ids()).logits.float()


def test_an_exported_adapter_is_what_plain_peft_loads(done: Study, tiny_model: Path, tmp_path: Path) -> None:
    found = export(done, "rank/r=4", tmp_path / "out", seed=2)
    assert found.files == ("README.md", "adapter_config.json", "adapter_model.safetensors")
    assert found.address == "rank/r=4/seed=2:train"
    other = export(done, "rank/r=4/seed=1", tmp_path / "other")
    assert other.address == "rank/r=4/seed=1:train"
    assert not torch.equal(tuned(tmp_path / "out", tiny_model), tuned(tmp_path / "other", tiny_model))
    state = done.state / "objects"
    attempt = done.plan().results[next(k for k, n in done.plan().graph.nodes.items() if n.address == found.address)]
    digest = attempt.outputs["adapter_model.safetensors"]
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == (state / digest[:2] / digest).read_bytes()


@pytest.mark.parametrize("configuration", ["rank/r=4", "dora/use_dora=true,r=4"])
def test_a_merged_model_is_what_plain_transformers_loads(
    done: Study, tiny_model: Path, tmp_path: Path, configuration: str
) -> None:
    from transformers import AutoTokenizer

    export(done, configuration, tmp_path / "adapter", seed=1)
    found = export(done, configuration, tmp_path / "merged", seed=1, merged=True)
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(found.files)
    assert (whole(tmp_path / "merged") - tuned(tmp_path / "adapter", tiny_model)).abs().max() < 1e-4
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("anna").input_ids
    assert str(tiny_model) not in (tmp_path / "merged" / "config.json").read_text(encoding="utf-8")


def test_a_merged_model_has_the_type_that_was_asked_for(done: Study, tmp_path: Path) -> None:
    export(done, "rank/r=4", tmp_path / "half", merged=True, dtype="bfloat16")
    with safe_open(tmp_path / "half" / "model.safetensors", framework="pt") as stream:
        assert {stream.get_tensor(name).dtype for name in stream.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert json.loads((tmp_path / "half" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"


def test_a_model_that_was_tuned_in_full_is_exported_with_its_tokenizer(done: Study, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    found = export(done, "other/method=full", tmp_path / "full", server="vllm")
    assert whole(tmp_path / "full").shape[-1] > 0
    assert AutoTokenizer.from_pretrained(tmp_path / "full")
    assert found.command == f"vllm serve {tmp_path / 'full'}"
    assert "curve.jsonl.gz" not in found.files


def test_a_cut_adapter_is_exported_by_its_address(done: Study, tiny_model: Path, tmp_path: Path) -> None:
    export(done, "rank/r=4/seed=1/truncate=2", tmp_path / "cut")
    config = json.loads((tmp_path / "cut" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == 2
    text = (tmp_path / "cut" / "README.md").read_text(encoding="utf-8")
    assert "It was truncated to rank 2" in text
    assert re.search(r"\| log loss \| test \| [\d.]+ \| 6 \|", text)
    assert tuned(tmp_path / "cut", tiny_model).isfinite().all()


def test_the_card_says_what_it_is(done: Study, tmp_path: Path) -> None:
    export(done, "rank/r=4", tmp_path / "out", seed=2)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["library_name"] == "peft"
    assert "lorafile" in about["tags"]
    plan = done.plan()
    node = next(node for node in plan.graph.nodes.values() if node.address == "rank/r=4/seed=2:train")
    lock = next(iter(plan.graph.lock.data.values()))
    for fact in (node.key, "| study | tiny |", "| seed | 2 |", *lock.digests.values(), "| adapter: r | 4 |", "peft"):
        assert fact in body, fact
    runs = done.gather().runs
    figure = runs[(runs["configuration"] == "rank/r=4") & (runs["seed"] == 2)]["test.log_loss"].iloc[0]
    assert f"| log loss | test | {figure:.2f} | 6 |" in body


def test_for_vllm_the_rank_is_raised_and_dora_is_refused(done: Study, tiny_model: Path, tmp_path: Path) -> None:
    small = export(done, "rank/r=4", tmp_path / "small", server="vllm")
    assert small.command == f"vllm serve {tiny_model} --enable-lora --lora-modules small={tmp_path / 'small'}"
    large = export(done, "rank/r=32", tmp_path / "large", server="vllm")
    assert "--max-lora-rank 32 " in large.command
    with pytest.raises(LoraError, match=r"does not support DoRA.*--merged"):
        export(done, "dora/use_dora=true,r=4", tmp_path / "dora", server="vllm")
    assert not (tmp_path / "dora").exists()
    merged = export(done, "dora/use_dora=true,r=4", tmp_path / "dora", merged=True, server="vllm")
    assert merged.command == f"vllm serve {tmp_path / 'dora'}"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save (lm_head)"),
        ({"bias": "all"}, "trained biases"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"peft_type": "LOHA"}, "this one is LOHA"),
    ],
)
def test_what_vllm_refuses_is_named(done: Study, tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    from lorafile.results.serving_rules import problems

    export(done, "rank/r=4", tmp_path / "out")
    files = {name: str(tmp_path / "out" / name) for name in ("adapter_config.json", "adapter_model.safetensors")}
    base = next(iter(done.plan().graph.lock.models.values()))
    assert problems("vllm", files, base) == []
    file = Path(files["adapter_config.json"])
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | settings), encoding="utf-8")
    assert told in problems("vllm", files, base)[0]


def test_nothing_is_written_over_and_what_cannot_be_exported_is_a_sentence(done: Study, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years", encoding="utf-8")
    for name, options, told in (
        ("rank/r=4", {}, "is not empty"),
        ("rank/r=5", {"force": True}, 'declares nothing named "rank/r=5".*did you mean "rank/r=4"'),
        ("other/method=none", {"force": True}, "untuned model"),
        ("rank/r=4", {"force": True, "seed": 7}, "has no seed 7; it has 1, 2"),
        ("rank/r=4", {"force": True, "dtype": "float16"}, "needs merged too"),
        ("other/method=full", {"force": True, "merged": True}, "nothing to merge"),
    ):
        with pytest.raises(LoraError, match=told):
            export(done, name, tmp_path / "mine", **options)  # type: ignore[arg-type]
        assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    export(done, "rank/r=4", tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.tex").read_text(encoding="utf-8") == "years"


def test_what_is_no_directory_is_refused_before_anything_is_written_beside_it(done: Study, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    before = tmp_path.stat().st_mtime_ns
    for name in ("pipe", "nowhere"):
        with pytest.raises(LoraError, match=f"{name} is not a directory"):
            export(done, "rank/r=4", tmp_path / name, force=True)
    assert tmp_path.stat().st_mtime_ns == before


def test_the_command_says_what_it_wrote_and_how_to_serve_it(done: Study, tmp_path: Path) -> None:
    spec, out = str(done.spec.file), str(tmp_path / "out")
    arguments = ["export", "rank/r=32", out, "--spec", spec, "--state", str(done.state), "--for", "vllm"]
    said = CliRunner().invoke(main, arguments)
    assert said.exit_code == 0, said.output
    assert "Wrote" in said.output
    assert "--max-lora-rank 32" in said.output


def test_without_torch_an_adapter_is_exported_all_the_same(done: Study, tmp_path: Path) -> None:
    script = f"""
import sys
for name in ("torch", "transformers", "peft", "safetensors"):
    sys.modules[name] = None
from pathlib import Path
from lorafile import Study
from lorafile.models.export import ExportOptions, export
from lorafile.state import State
study = Study.load({str(done.spec.file)!r}, {str(done.state)!r})
options = ExportOptions(server="vllm")
print(export(study.plan(), State.read(study.state), "rank/r=4", Path({str(tmp_path / "out")!r}), options).files)
"""
    ran = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "adapter_model.safetensors" in ran.stdout


def test_private_data_are_not_named_on_the_card(done: Study, tmp_path: Path, rows_file: Path) -> None:
    text = done.spec.file.read_text(encoding="utf-8").replace("[data]\n", "[data]\nprivate = true\n")
    file = done.spec.file.with_name("private.toml")
    file.write_text(text, encoding="utf-8")
    export(Study.load(file, done.state), "rank/r=4", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert str(rows_file) not in card
    assert "private; not listed here" in card
