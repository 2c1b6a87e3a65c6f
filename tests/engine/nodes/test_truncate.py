"""Rank truncation: what a known rank keeps and loses, PEFT's own loading, and the study around it."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import Engine, train_of_known_rank  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.analysis.registry import analyses  # noqa: E402
from lorafile.engine.model.adapters import peft_errors  # noqa: E402
from lorafile.errors import SpecError  # noqa: E402

STUDY = '[truncate]\nranks = [8, 4, 2]\n[[sweep]]\nname = "rank"\nlora.r = [2, 8]\n'


def cut(engine: Engine, files: dict[str, str], rank: int) -> tuple[Any, dict[str, str]]:
    return engine.run("truncate", {"truncation": {"rank": rank}}, {"adapter": files})


def logits(engine: Engine, files: dict[str, str]) -> Any:
    """Return what plain PEFT makes of an adapter."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with peft_errors():  # peft's own deprecated names
        base = AutoModelForCausalLM.from_pretrained(engine.model)
        model = PeftModel.from_pretrained(base, Path(files["adapter_config.json"]).parent)
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 25)[None]).logits


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"alpha_pattern": {"down_proj": 5.0}}])
def test_an_adapter_of_known_rank_loses_nothing_at_it_and_something_below(
    engine: Engine, settings: dict[str, Any]
) -> None:
    whole = train_of_known_rank(engine, **settings)
    done, four = cut(engine, whole, 4)
    assert done.figures["kept_energy"] == pytest.approx(1, abs=1e-6)
    assert load_file(four["adapter_model.safetensors"])[
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    ].shape == (4, 64)
    assert torch.allclose(logits(engine, four), logits(engine, whole), atol=1e-5)
    half, two = cut(engine, whole, 2)
    assert half.figures["kept_energy"] == pytest.approx(0.5, abs=1e-6), "two of four equal singular values"
    assert (logits(engine, two) - logits(engine, whole)).abs().max() > 1e-3
    assert half.figures["adapter_bytes"] < done.figures["adapter_bytes"]


def test_a_rank_pattern_is_cut_where_it_is_larger(engine: Engine) -> None:
    adapter = {
        "method": "lora",
        "r": 8,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"down_proj": 2},
    }
    _, files = engine.train(engine.prepare(), adapter)
    done, four = cut(engine, files, 4)
    assert done.outcome == "done", done.message
    ranks = {
        name.split(".")[-3]: len(tensor)
        for name, tensor in load_file(four["adapter_model.safetensors"]).items()
        if "lora_A" in name
    }
    assert ranks == {"q_proj": 4, "down_proj": 2}
    _, same = cut(engine, files, 8)
    assert torch.allclose(logits(engine, same), logits(engine, files), atol=1e-5)
    config = json.loads(Path(four["adapter_config.json"]).read_text(encoding="utf-8"))
    assert config["rank_pattern"]["model.layers.0.mlp.down_proj"] == 2


def test_the_cut_update_is_the_nearest_of_its_rank(engine: Engine) -> None:
    _, files = engine.train(engine.prepare(), {"method": "lora", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]})
    _, three = cut(engine, files, 3)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_{}.weight"

    def update(adapter: dict[str, str]) -> Any:
        tensors = load_file(adapter["adapter_model.safetensors"])
        return tensors[name.format("B")] @ tensors[name.format("A")]

    u, s, vt = torch.linalg.svd(update(files).double())
    nearest = u[:, :3] * s[:3] @ vt[:3]
    assert torch.allclose(update(three).double(), nearest, atol=1e-6 * float(s[0]))


def test_dora_is_refused_in_a_sentence(engine: Engine) -> None:
    adapter = {"method": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "use_dora": True}
    _, files = engine.train(engine.prepare(), adapter)
    done, _ = cut(engine, files, 2)
    assert (done.outcome, "DoRA" in done.message) == ("failed", True)


def load(spec_file: Path, more: str = "") -> Study:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write(more)
    return Study.load(spec_file, spec_file.parent / ".lora")


def test_a_study_is_truncated_without_training_anything(spec_file: Path) -> None:
    load(spec_file, STUDY.replace("[truncate]\nranks = [8, 4, 2]\n", "")).apply()
    plan = load(spec_file, "[truncate]\nranks = [8, 4, 2]\n").plan()
    kinds = {change.kind for change in plan.work}
    assert kinds == {"truncate", "predict", "score"}
    assert {change.configuration for change in plan.work} == {"rank/r=8"}, "rank 2 has nothing smaller among them"
    assert "rank/r=8/seed=1/truncate=4:truncate" in {change.address for change in plan.work}
    applied = load(spec_file).apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    assert load(spec_file).plan().work == []
    results = load(spec_file).gather()
    assert sorted(set(results.truncations["rank"])) == [2, 4]
    assert results.truncations["test.log_loss"].notna().all()
    (found,) = [analysis for analysis in analyses(results, []) if analysis.kind == "truncation"]
    assert found.charts
    assert any("enough" in sentence for sentence in found.sentences)
    assert "trained at that rank" in " ".join(column.title for column in found.tables[0].columns)


def test_a_truncation_that_cuts_nothing_is_a_mistake_in_the_spec(spec_file: Path) -> None:
    with pytest.raises(SpecError, match="no configuration has a larger rank"):
        load(spec_file, "[truncate]\nranks = [64]\n").plan()
