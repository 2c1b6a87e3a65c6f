"""A real pretrained model and real data, from the folder next to the checkout."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from lorafile import Study, specs  # noqa: E402
from lorafile.specs.catalogue import preset  # noqa: E402


def changed(name: str, shared: Path, data: str, steps: int) -> str:
    """A preset with model and data changed, and, because a test has a minute, fewer steps and one seed."""
    text = preset(name)
    text = text.replace('"builtin:facts-llama"', f'"{shared}/models/stories260K-hf"')
    text = text.replace('"builtin:facts"', f'"{shared}/data/{data}"')
    return (
        text.replace("seeds = [42, 1337, 2024]", "seeds = [42]")
        + f"\n[profile]\nenabled = false\n[full]\nmax_steps = {steps}\n"
    )


@pytest.mark.parametrize("data", ["instruct/self_instruct.jsonl", "gsm8k"])
def test_every_rank_lowers_the_held_out_loss_of_a_real_model(tmp_path: Path, shared: Path, data: str) -> None:
    file = tmp_path / "study.toml"
    text = changed("rank_sweep", shared, data, 20).replace("[train]", "[train]\nmax_steps = 20\nwarmup_steps = 0.1")
    text = text.replace("learning_rate = 2e-4", "learning_rate = 2e-3")
    text = text.replace('too_long = "drop"', 'too_long = "drop"\nsplit = { train = 160, validation = 16, test = 24 }')
    file.write_text(text, encoding="utf-8")
    study = Study.load(file, tmp_path / ".lora")
    applied = study.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, [a.message for a in applied.attempts]
    loss = study.results().set_index("configuration")["test.log_loss"]
    for configuration in study.spec.configurations:
        if configuration.method == "lora":
            assert loss[configuration.name] < loss["untuned/method=none"]


def test_the_evaluation_loss_is_transformers_own(tmp_path: Path, shared: Path) -> None:
    """The untuned row, example by example, against `model(input_ids, labels=…).loss` on the same tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lorafile.engine.data.readers import read_rows
    from lorafile.engine.data.templates import ALPACA, ALPACA_INPUT
    from lorafile.files.jsonl import read_lines
    from lorafile.state import State

    data = shared / "data" / "instruct" / "self_instruct.jsonl"
    text = (
        f'[study]\nname = "x"\n[model]\npath = "{shared}/models/stories260K-hf"\n[data]\npath = "{data}"\n'
        'too_long = "drop"\nsplit = { test = "train[:12]" }\n[profile]\nenabled = false\n'
        '[[sweep]]\nmethod = ["none"]\n'
    )
    file = tmp_path / "study.toml"
    file.write_text(text, encoding="utf-8")
    study = Study.load(file, tmp_path / ".lora")
    study.apply()
    model = AutoModelForCausalLM.from_pretrained(shared / "models" / "stories260K-hf")
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "stories260K-hf")
    rows = list(read_rows([data]))
    state = State.read(tmp_path / ".lora")
    attempt = next(a for many in state.latest().values() for a in many if a.kind == "predict")
    predicted = list(read_lines(state.objects.path(attempt.outputs["predictions.jsonl.gz"])))
    assert len(predicted) > 5
    for line in predicted:
        row = rows[line["row"]]
        prompt = (ALPACA_INPUT if row["input"].strip() else ALPACA).format(
            **{k: row[k] for k in ("instruction", "input")}
        )
        ids = [*tokenizer(prompt + row["output"])["input_ids"], tokenizer.eos_token_id]
        start = len(tokenizer(prompt)["input_ids"])
        labels = torch.tensor([[-100] * start + ids[start:]])
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([ids]), labels=labels).loss.item()
        assert -line["log_likelihood"] / line["tokens"] == pytest.approx(theirs, abs=1e-4)


def test_every_quantization_of_a_real_model_trains(tmp_path: Path, shared: Path) -> None:
    file = tmp_path / "study.toml"
    text = changed("quantization_sweep", shared, "instruct/self_instruct.jsonl", 6).replace(
        "[train]", "[train]\nmax_steps = 6"
    )
    if "[train]" not in text:
        text += "[train]\nmax_steps = 6\n"
    text = text.replace('too_long = "drop"', 'too_long = "drop"\nsplit = { train = 64, validation = 8, test = 8 }')
    file.write_text(text, encoding="utf-8")
    study = Study.load(file, tmp_path / ".lora")
    assert {attempt.outcome for attempt in study.apply().attempts} == {"done"}
    assert study.results()["test.log_loss"].notna().all()


def test_all_presets_plan_on_a_real_model(tmp_path: Path, shared: Path) -> None:
    from lorafile.specs.catalogue import preset_names

    for name in preset_names():
        file = tmp_path / f"{name}.toml"
        file.write_text(changed(name, shared, "gsm8k", 5), encoding="utf-8")
        study = Study(specs.load(file), tmp_path / ".lora")
        assert study.plan().work
