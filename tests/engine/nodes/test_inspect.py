"""Looking inside an adapter: known spectra, known similarities, and the study around it."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import MODEL, Engine, train_of_known_rank  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.analysis.registry import analyses  # noqa: E402
from lorafile.engine.model.updates import decompose, effective_rank, energy_rank, stable_rank  # noqa: E402
from lorafile.engine.nodes.inspect import linear_cka  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.report.writer import write_report  # noqa: E402


def look(engine: Engine, adapter: dict[str, str], quantization: Any = None) -> tuple[Any, list[Any], list[Any]]:
    settings = {"model": MODEL, "quantization": quantization, "inspection": {"examples": 6}}
    done, files = engine.run("inspect", settings, {"adapter": adapter, "data": engine.prepare()})
    assert done.outcome == "done", done.message
    return done, *(list(read_lines(files[name])) for name in ("modules.jsonl.gz", "representations.jsonl.gz"))


def test_the_singular_values_of_a_product_are_those_of_the_product() -> None:
    generator = torch.Generator().manual_seed(1)
    b, a = torch.randn(40, 5, generator=generator), torch.randn(5, 30, generator=generator)
    parts = decompose(b, a)
    assert torch.allclose(parts.s, torch.linalg.svdvals(b.double() @ a.double())[:5], rtol=1e-10)
    assert torch.allclose(parts.u * parts.s @ parts.v.T, b.double() @ a.double(), atol=1e-10)


def test_ranks_have_their_closed_forms() -> None:
    equal = torch.ones(4)
    assert effective_rank(equal) == pytest.approx(4)
    assert stable_rank(equal) == pytest.approx(4)
    assert energy_rank(equal) == 4
    uneven = torch.tensor([3.0, 1.0])
    assert effective_rank(uneven) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert stable_rank(uneven) == pytest.approx(10 / 9)
    assert energy_rank(uneven) == 1, "exactly 90 % is 90 %"
    assert effective_rank(torch.zeros(4)) == stable_rank(torch.zeros(4)) == energy_rank(torch.zeros(4)) == 0


@pytest.mark.parametrize("shape", [(200, 8), (20, 64)])
def test_cka_is_one_for_itself_rotated_scaled_and_moved_and_small_for_noise(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(*shape, generator=generator)
    rotation = torch.linalg.qr(torch.randn(shape[1], shape[1], generator=generator))[0]
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-6)
    noise = torch.randn(5000, 4, generator=generator)
    assert linear_cka(noise, torch.randn(5000, 4, generator=generator)) < 0.01


def test_cka_agrees_with_the_gram_matrices_of_its_definition() -> None:
    """HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with centred Gram matrices, by numpy."""
    import numpy as np

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 7)), rng.normal(size=(50, 9))
    y[:, :7] += x
    centring = np.eye(50) - 1 / 50
    k, m = (centring @ side @ side.T @ centring for side in (x, y))
    wanted = np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))
    assert linear_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(wanted, rel=1e-10)


def test_an_adapter_of_known_rank_says_so(engine: Engine) -> None:
    done, modules, drift = look(engine, train_of_known_rank(engine, rank=16, known=4))
    assert done.figures["effective_rank"] == pytest.approx(4, abs=1e-3)
    assert {row["energy_rank"] for row in modules} == {4}
    assert {row["rank"] for row in modules} == {16}
    first = modules[0]
    assert first["singular_values"][:4] == pytest.approx([0.6] * 4, rel=1e-5), "scaling 2 times 0.3"
    assert first["frobenius"] == pytest.approx(1.2, rel=1e-5)
    assert first["spectral"] == pytest.approx(0.6, rel=1e-5)
    assert (first["type"], first["layer"]) == ("down_proj", 0)
    assert drift[0] == {"layer": 0, "cka": pytest.approx(1)}, "nothing reaches the embeddings"
    assert drift[-1]["cka"] < 0.9999
    assert len(drift) == 3


def test_an_update_of_nothing_leaves_the_model_where_it_was(engine: Engine) -> None:
    from safetensors.torch import load_file, save_file

    _, files = engine.train(engine.prepare(), max_steps=1)
    tensors = load_file(files["adapter_model.safetensors"])
    nothing = {name: tensor * (0 if "lora_B" in name else 1) for name, tensor in tensors.items()}
    save_file(nothing, files["adapter_model.safetensors"])
    done, modules, drift = look(engine, files)
    assert [row["cka"] for row in drift] == pytest.approx([1, 1, 1])
    assert done.figures["update_norm"] == 0
    assert {row["effective_rank"] for row in modules} == {0}


def test_trained_parameters_are_counted_where_they_are(engine: Engine) -> None:
    trained, files = engine.train(engine.prepare())
    done, modules, _ = look(engine, files)
    assert done.figures["trainable_parameters"] == trained.figures["trainable_parameters"]
    assert done.figures["total_parameters"] == trained.figures["total_parameters"]
    sizes = {(row["type"], row["layer"]): row["parameters"] for row in modules}
    assert sizes[("down_proj", 1)] == 4 * (128 + 64)


def test_dora_s_norm_is_that_of_the_weight_it_really_makes(engine: Engine) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lorafile.engine.model.adapters import peft_errors

    adapter = {"method": "lora", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "use_dora": True}
    _, files = engine.train(engine.prepare(), adapter)
    _, modules, _ = look(engine, files)
    base = AutoModelForCausalLM.from_pretrained(engine.model)
    before = base.model.layers[0].self_attn.q_proj.weight.detach().clone()
    with peft_errors():
        merged = PeftModel.from_pretrained(base, Path(files["adapter_config.json"]).parent).merge_and_unload()
    moved = merged.model.layers[0].self_attn.q_proj.weight - before
    assert modules[0]["frobenius"] == pytest.approx(float(moved.norm()), rel=1e-3)


def test_full_fine_tuning_is_held_against_the_files_it_began_from(engine: Engine) -> None:
    _, files = engine.train(engine.prepare(), {"method": "full"}, learning_rate=1e-3)
    done, modules, drift = look(engine, files)
    assert done.figures["trainable_share"] == 1
    row = next(row for row in modules if row["module"] == "model.layers.1.mlp.up_proj")
    assert 0 < row["relative_norm"] < 1
    assert row["effective_rank"] > 4
    assert drift[-1]["cka"] < 1


def test_an_int8_base_is_measured_by_what_it_holds(engine: Engine) -> None:
    from lorafile.specs.configurations import quantization_settings

    _, files = engine.train(engine.prepare(), quantization="int8", max_steps=2)
    done, _, _ = look(engine, files, quantization_settings("int8"))
    assert 0 < done.figures["relative_norm"] < 1


def test_a_study_shows_what_is_inside(spec_file: Path) -> None:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write('[inspect]\nexamples = 4\n[[sweep]]\nname = "method"\nmethod = ["lora", "full", "none"]\n')
    study = Study.load(spec_file, spec_file.parent / ".lora")
    assert sum(change.kind == "inspect" for change in study.plan().work) == 4
    assert {attempt.outcome for attempt in study.apply().attempts} == {"done"}
    results = study.gather()
    found = analyses(results, [])
    (inside,) = [analysis for analysis in found if analysis.kind == "inspect"]
    assert set(inside.charts) == {"inspect-norm", "inspect-rank", "inspect-cka"}
    assert any("effective rank of" in sentence for sentence in inside.sentences)
    files = {file.name for file in write_report(results, found, spec_file.parent / "report")}
    assert {"report.html", "RESULTS.md", "inspect-norm.png"} <= files


def test_nothing_is_looked_into_unless_it_is_declared(spec_file: Path) -> None:
    plan = Study.load(spec_file, spec_file.parent / ".lora").plan()
    assert {change.kind for change in plan.changes} == {"prepare", "train", "predict", "score"}


def test_packed_text_is_compared_document_by_document(spec_file: Path, tmp_path: Path) -> None:
    rows = tmp_path / "text.jsonl"
    rows.write_text('{"text": "anna lives in paris . where does she live ?"}\n' * 60, encoding="utf-8")
    text = spec_file.read_text(encoding="utf-8")
    text = re.sub(r'path = "[^"]*rows.jsonl"', f'path = "{rows}"\nformat = "text"', text)
    spec_file.write_text(text + '[inspect]\nexamples = 2\n[merge]\ndtypes = ["float32"]\n', encoding="utf-8")
    study = Study.load(spec_file, spec_file.parent / ".lora")
    applied = study.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    found = study.gather()
    assert found.representations["cka"].between(0, 1).all()
    assert found.merges["max_logit_difference"].max() < 1e-4


SETTINGS: dict[str, dict[str, Any]] = {
    "LoraConfig": {},
    "IA3Config": {"feedforward_modules": ["down_proj"]},
    "VeraConfig": {},
    "LoHaConfig": {},
    "LoKrConfig": {},
    "AdaLoraConfig": {"total_step": 10},
    "MissConfig": {"r": 8},
    "OFTConfig": {"oft_block_size": 4},
    "BOFTConfig": {"boft_block_size": 4},
    "HRAConfig": {"r": 4},
    "RoadConfig": {"group_size": 8},
    "C3AConfig": {"block_size": 8},
    "HiraConfig": {},
    "GloraConfig": {},
}


@pytest.mark.parametrize("method", SETTINGS)
def test_every_method_s_update_is_what_peft_merges(tiny_model: Path, method: str) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    from lorafile.engine.model.adapters import peft_errors
    from lorafile.engine.model.updates import adapter_updates

    options: dict[str, Any] = {"target_modules": ["q_proj", "down_proj"], **SETTINGS[method]}
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = {name: weight.detach().clone() for name, weight in base.named_parameters()}
    with peft_errors(), torch.no_grad():
        model = peft.get_peft_model(base, getattr(peft, method)(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(5)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        rows = {row["module"]: row for row in adapter_updates(model)}
        after = dict(model.merge_and_unload().named_parameters())
    assert len(rows) == 4
    for module, row in rows.items():
        delta = (after[f"{module}.weight"] - before[f"{module}.weight"]).double()
        values = torch.linalg.svdvals(delta)
        assert row["frobenius"] == pytest.approx(float(values.norm()), rel=1e-4)
        assert row["spectral"] == pytest.approx(float(values[0]), rel=1e-4)
        assert row["effective_rank"] == pytest.approx(effective_rank(values[values > 1e-5 * values[0]]), rel=1e-2)
        assert row["relative_norm"] == pytest.approx(float(values.norm() / before[f"{module}.weight"].norm()), rel=1e-4)
