"""What somebody may not have meant is said in the plan: a warm-up without end, a chat template that is not used."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from checkpoint_fixture import make_checkpoint, word_tokenizer  # noqa: E402
from spec_fixture import BASIC  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402

TEMPLATE = (
    "{% for m in messages %}[CLS] {{ m.role }} : {{ m.content }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}[CLS] assistant : {% endif %}"
)


def make(tmp_path: Path, template: str | None = None, *changes: tuple[str, str]) -> Study:
    model = tmp_path / "model"
    if not model.exists():
        make_checkpoint("llama", model)
        tokenizer = word_tokenizer(encoder=False)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(model)
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps({"question": f"where is tom {n} ?", "answer": "in rome"}) for n in range(40)]
    rows.write_text("\n".join(lines), encoding="utf-8")
    text = BASIC.format(model=model, data=rows)
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    return Study.load(tmp_path / "study.toml", tmp_path / ".lora")


@pytest.mark.parametrize(
    ("steps", "warmup", "said"),
    [
        (3, "3", "a warm-up of 3 steps in a run of 3 never reaches the learning rate"),
        (3, "2", ""),
        (1, "1", "a run of a single warm-up step has a learning rate of zero and learns nothing"),
        (1, "0.1", "has a learning rate of zero"),
        (10, "0.1", ""),
    ],
)
def test_a_warmup_as_long_as_the_run_is_named(tmp_path: Path, steps: int, warmup: str, said: str) -> None:
    plan = make(tmp_path, None, ("max_steps = 3", f"max_steps = {steps}\nwarmup_steps = {warmup}")).plan()
    found = [line for line in plan.warnings if "train.warmup_steps" in line]
    assert bool(found) is bool(said)
    assert said in "".join(found)


def test_the_steps_of_epochs_are_counted(tmp_path: Path) -> None:
    """16 rows in batches of 8 are two steps an epoch."""
    plan = make(tmp_path, None, ("max_steps = 3", "num_train_epochs = 2\nwarmup_steps = 4")).plan()
    assert any("in a run of 4" in line for line in plan.warnings)


def test_auto_puts_rows_through_the_chat_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    study = make(tmp_path, TEMPLATE)
    assert not [line for line in study.plan().warnings if "chat template" in line]
    done = study.apply(study.plan(target=["data/*"]))
    attempt = next(attempt for attempt in done.attempts if attempt.address == "data/test:prepare")
    from lorafile.state import State

    file = State.read(study.state).objects.path(attempt.outputs["examples.jsonl.gz"])
    rows = list(read_lines(str(file)))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    asked = [{"role": "user", "content": f"where is tom {rows[0]['row']} ?"}]
    assert rows[0]["prompt"] == tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert rows[0]["reference"] == "in rome"


def test_a_template_that_is_not_used_is_named_in_plan_and_report(tmp_path: Path) -> None:
    study = make(tmp_path, TEMPLATE, ("[data]\n", '[data]\nformat = "question"\n'))
    (line,) = [line for line in study.plan().warnings if "chat template" in line]
    assert 'data.format = "question" writes prompts without it' in line
    assert line in study.gather().warnings


def test_data_of_a_checkpoint_without_a_template_have_the_key_that_they_had(tmp_path: Path) -> None:
    sections = [node.settings["data"] for node in make(tmp_path).plan().graph.nodes.values() if node.kind == "prepare"]
    assert sections
    assert not any("chat_template" in section or "end_token" in section for section in sections)


def test_the_models_end_token_closes_answers_where_the_tokenizer_has_none(tmp_path: Path) -> None:
    study = make(tmp_path)
    config = tmp_path / "model" / "tokenizer_config.json"
    settings = json.loads(config.read_text(encoding="utf-8"))
    del settings["eos_token"]
    config.write_text(json.dumps(settings), encoding="utf-8")
    assert {a.outcome for a in study.apply(study.plan(target=["data/*"])).attempts} == {"done"}
    data = next(node for node in study.plan().graph.nodes.values() if node.kind == "prepare").settings["data"]
    assert data["end_token"] == 2  # LlamaConfig's eos_token_id
    for name in ("config.json", "generation_config.json"):
        file = tmp_path / "model" / name
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(content | {"eos_token_id": None}), encoding="utf-8")
    failed = study.apply(study.plan(target=["data/*"])).attempts
    assert {attempt.outcome for attempt in failed} == {"failed"}
    assert "the model cannot learn where an answer ends" in failed[0].message


def test_choices_that_no_format_reads_are_named(tmp_path: Path) -> None:
    """MMLU's layout: the answer is the number of a choice."""
    study = make(tmp_path)
    rows = [{"question": f"where is tom {n} ?", "choices": ["rome", "oslo"], "answer": n % 2} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (line,) = [line for line in study.plan().warnings if "choices" in line]
    assert "choices has lists, which no format reads, so each question is asked without its choices" in line
    written = [row | {"choices": "rome or oslo"} for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, written)), encoding="utf-8")
    assert "choices" not in "".join(study.plan().warnings)


@pytest.mark.parametrize(("wrong", "said"), [(0, False), (1, True), (10, True), (40, False)])
def test_answers_that_are_not_read_and_say_otherwise_are_counted(tmp_path: Path, wrong: int, said: bool) -> None:
    """The layout of LLM-Adapters: a worked solution, which may be wrong, and the answer.

    If nearly all differ, the column is something else: the number of a choice.
    """
    study = make(tmp_path)
    rows = [
        {"instruction": f"{n} + 1 ?", "input": "", "output": f"It is {n + 1}.", "answer": n + 1 + 100 * (n < wrong)}
        for n in range(40)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    lines = [line for line in study.plan().warnings if '"answer" is not read' in line]
    assert bool(lines) == said
    assert all(f'in {wrong} of 40 rows its answer is not in "output"' in line for line in lines)
    spec = tmp_path / "study.toml"
    text = spec.read_text(encoding="utf-8").replace("[train]", 'columns = { output = "answer" }\n[train]')
    spec.write_text(text, encoding="utf-8")
    assert "is not read" not in "".join(Study.load(spec, tmp_path / ".lora").plan().warnings)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("[oft]\noft_block_size = 4", "[oft]: no configuration uses it, so nothing changes."),
        ("[oft]\noft_block_size = 4\n[full]\nlearning_rate = 1e-5", "[oft] and [full]: no configuration uses them"),
        ('[trainer.trl]\ncommand = ["python", "sft.py"]', "[trainer.trl]: no configuration uses it"),
        ("[lora]\nr = 4", ""),
    ],
)
def test_a_table_that_no_configuration_uses_is_named(tmp_path: Path, added: str, said: str) -> None:
    (tmp_path / "sft.py").write_text("", encoding="utf-8")
    study = make(tmp_path, None, ("[train]", f"{added}\n[train]"))
    warnings = "\n".join(study.plan().warnings)
    assert said in warnings
    assert bool(said) == ("no configuration uses" in warnings)
    assert "no configuration uses" not in "\n".join(study.gather().warnings), "no reader of results needs to know"


@pytest.mark.parametrize(("decay", "said"), [(3, False), (4, True)])
def test_a_decay_that_the_run_does_not_reach_the_end_of_is_named(tmp_path: Path, decay: int, said: bool) -> None:
    schedule = f'lr_scheduler_type = "warmup_stable_decay"\nlr_scheduler_kwargs = {{ num_decay_steps = {decay} }}'
    plan = make(tmp_path, None, ("max_steps = 3", f"max_steps = 5\nwarmup_steps = 2\n{schedule}")).plan()
    sentence = f"a decay of {decay} steps that begins after step 2 does not end in a run of 5"
    assert any(sentence in line for line in plan.warnings) == said
