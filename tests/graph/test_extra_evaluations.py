"""What is looked at next to the held-out splits: a reference text, prompts, and tasks of lm-evaluation-harness."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from lorafile import Study
from lorafile.analysis.registry import analyses
from lorafile.errors import SpecError
from lorafile.plan.plan import Plan
from lorafile.report.html import page
from lorafile.report.markdown import document
from lorafile.state import State

SWEEP = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'


def study(spec_file: Path, lines: str, more: str = SWEEP) -> Study:
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace("[profile]", f"{lines}\n[profile]") + more, encoding="utf-8")
    return Study.load(spec_file, spec_file.parent / ".lora")


def addresses(plan: Plan, kind: str) -> list[str]:
    return [node.address for node in plan.graph.nodes.values() if node.kind == kind]


@pytest.fixture
def reference(spec_file: Path) -> str:
    texts = ["anna lives in paris .", "who is anna ?", "rome and oslo and lima", "where is it ?"]
    (spec_file.parent / "reference.txt").write_text("\n".join(texts), encoding="utf-8")
    return '[evaluate.reference]\npath = "reference.txt"\nrows = 1.0\nmax_length = 16'


def test_forgetting_is_the_loss_on_a_reference_text_after_and_before(spec_file: Path, reference: str) -> None:
    wanted = study(spec_file, reference)
    plan = wanted.plan()
    assert [a for a in addresses(plan, "prepare") if "reference" in a] == ["data/reference:prepare"]
    before = [a for a in addresses(plan, "score") if a.startswith("untuned/")]
    assert before == ["untuned/rank/r=2:score/reference"], "one base, one row before"
    assert {attempt.outcome for attempt in wanted.apply().attempts} == {"done"}
    results = wanted.gather()
    assert results.runs["reference.before"].nunique() == 1
    assert results.runs["reference.before"][0] == pytest.approx(by_transformers(wanted, spec_file), rel=1e-5)
    assert (results.runs["reference.log_loss"] != results.runs["reference.before"]).all()
    found = next(analysis for analysis in analyses(results, []) if analysis.kind == "forgetting")
    change = results.runs.groupby("configuration")["reference.change"].mean()
    assert found.table is not None
    assert found.table.set_index("configuration")["change"].to_dict() == pytest.approx(change.to_dict())
    raised = bool(change.max() > 0)
    assert ("raised the loss on the reference text by" in found.sentences[0]) is raised
    assert ("No configuration raised" in found.sentences[0]) is not raised
    assert "reference.txt" in found.sentences[-1]
    assert "Forgetting" in page(results, analyses(results, []))


def by_transformers(wanted: Study, spec_file: Path) -> float:
    """Return the mean loss of a token of the reference text, by transformers' own loss, one text at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = wanted.spec.tables.model.path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(where).eval(), AutoTokenizer.from_pretrained(where)
    total = tokens = 0.0
    for line in (spec_file.parent / "reference.txt").read_text(encoding="utf-8").splitlines():
        ids = tokenizer(line)["input_ids"]
        ids = torch.tensor([ids if ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]])
        total += float(model(input_ids=ids, labels=ids).loss.detach()) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return total / tokens


def test_an_untuned_row_is_the_before_and_is_not_computed_twice(spec_file: Path, reference: str) -> None:
    plan = study(spec_file, reference, '[[sweep]]\nname = "m"\nmethod = ["none", "lora", "full"]\n').plan()
    found = [a for a in addresses(plan, "score") if a.endswith("score/reference")]
    assert [a for a in found if "seed" not in a] == ["m/method=none:score/reference"]


def test_a_reference_text_that_cannot_be_read_is_told_at_its_setting(spec_file: Path, reference: str) -> None:
    with pytest.raises(SpecError, match=r"evaluate\.reference\.rows: .*asks for 9 rows, but 4 of 4 are left"):
        study(spec_file, reference.replace("1.0", "9")).plan()
    text = spec_file.read_text(encoding="utf-8").replace("rows = 9", 'rows = 2\nformat = "squad"')
    spec_file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"evaluate\.reference\.format: .*no column"):
        Study.load(spec_file, spec_file.parent / ".lora").plan()


PROMPTS = '[evaluate.prompts]\ntexts = ["where does anna live ?", "<b>who</b> | `is` it ?"]'


def test_answers_to_prompts_stand_side_by_side_in_the_report_as_plain_text(spec_file: Path) -> None:
    wanted = study(spec_file, PROMPTS)
    plan = wanted.plan()
    asked = [a for a in addresses(plan, "predict") if "prompts" in a]
    assert asked == [f"rank/r={r}/seed=1:predict/prompts/generation" for r in (2, 4)] + [
        "untuned/rank/r=2:predict/prompts/generation"
    ]
    assert {attempt.outcome for attempt in wanted.apply().attempts} == {"done"}
    results = wanted.gather()
    assert list(results.answers["prompt"][:2]) == ["where does anna live ?", "<b>who</b> | `is` it ?"]
    found = next(analysis for analysis in analyses(results, []) if analysis.kind == "prompts")
    assert [list(table.frame["who"]) for table in found.tables] == [["untuned", "rank/r=2", "rank/r=4"]] * 2
    html, markdown = page(results, [found]), document(results, [found])
    assert "&lt;b&gt;who&lt;/b&gt;" in html
    assert "<b>who" not in html
    assert "Prompt 1: where does anna live ?" in markdown
    assert "<b>" not in markdown


def test_private_prompts_are_in_no_report(spec_file: Path) -> None:
    wanted = study(spec_file, PROMPTS + "\nprivate = true")
    wanted.apply()
    results = wanted.gather()
    text = document(results, analyses(results, [])) + page(results, analyses(results, []))
    assert "where does anna live" not in text
    assert "Prompts and answers are private" in text


def prompt_texts(wanted: Study, state: Path) -> list[str]:
    """Return what the model reads for each prompt."""
    from lorafile.files.jsonl import read_lines

    applied = wanted.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, applied.with_outcome("failed")
    done = next(a for a in applied.attempts if a.address == "data/prompts:prepare")
    objects = State.read(state).objects
    return [line["prompt"] for line in read_lines(objects.path(done.outputs["examples.jsonl.gz"]))]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("prompts.txt", "where is anna ?\n\nwho is it ?\n", ["where is anna ?", "who is it ?"]),
        ("prompts.jsonl", '{"prompt": "where is anna ?"}\n', ["where is anna ?"]),
    ],
)
def test_prompts_come_from_a_file(spec_file: Path, file: str, content: str, expected: list[str]) -> None:
    (spec_file.parent / file).write_text(content, encoding="utf-8")
    wanted = study(spec_file, f'[evaluate.prompts]\npath = "{file}"', "")
    assert prompt_texts(wanted, spec_file.parent / ".lora") == expected


def test_prompts_go_through_the_data_s_own_format(spec_file: Path, rows_file: Path) -> None:
    rows = [{"question": f"where is {n} ?", "answer": "rome"} for n in range(40)]
    (spec_file.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = spec_file.read_text(encoding="utf-8").replace(str(rows_file), "rows.jsonl")
    spec_file.write_text(text, encoding="utf-8")
    wanted = study(spec_file, '[evaluate.prompts]\ntexts = ["who is it ?"]', "")
    assert prompt_texts(wanted, spec_file.parent / ".lora") == ["Question: who is it ?\nAnswer:"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("[evaluate.prompts]", 'evaluate.prompts: has no prompts; write texts = ["…"]'),
        ('[evaluate.prompts]\npath = "gone.txt"', "evaluate.prompts.path: there is no file"),
        ("lm_eval_limit = 3", "evaluate.lm_eval_limit: applies to evaluate.lm_eval_tasks"),
        ('lm_eval_tasks = ["a"]\nlm_eval_include_path = "gone"', "lm_eval_include_path: there is no folder"),
    ],
)
def test_what_cannot_be_asked_is_told_where_it_stands(spec_file: Path, lines: str, told: str) -> None:
    with pytest.raises(SpecError) as error:
        study(spec_file, lines).plan()
    assert told in str(error.value)


def test_a_prompt_that_is_too_long_is_an_outcome_and_the_rest_goes_on(spec_file: Path) -> None:
    applied = study(spec_file, f'[evaluate.prompts]\ntexts = ["{"anna " * 40}"]', "").apply()
    (failed,) = applied.with_outcome("failed")
    assert failed.address == "data/prompts:prepare"
    assert "evaluate.prompts: prompt 1 has" in failed.message
    assert sum(attempt.kind == "score" for attempt in applied.attempts) == 4


TASK = """
task: rome_or_oslo
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{label}}}}"
doc_to_choice: ["rome", "oslo"]
metric_list:
  - metric: acc
"""


@pytest.fixture
def harness(spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(spec_file.parent / "cache"))
    folder = spec_file.parent / "tasks"
    folder.mkdir()
    rows = [{"question": f"where is number {n} ?", "label": n % 2} for n in range(8)]
    (folder / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "task.yaml").write_text(TASK.format(data=folder / "rows.json"), encoding="utf-8")
    return 'lm_eval_tasks = ["rome_or_oslo"]\nlm_eval_include_path = "tasks"'


def test_a_harness_task_runs_on_every_model_and_its_files_are_in_the_key(spec_file: Path, harness: str) -> None:
    wanted = study(spec_file, harness + "\nlm_eval_limit = 6", "")
    applied = wanted.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}, applied.with_outcome("failed")
    asked = {a.address: a.figures for a in applied.attempts if "lm-eval" in a.address}
    assert set(asked) == {
        "lora/seed=1:predict/lm-eval/rome_or_oslo",
        "lora/seed=2:predict/lm-eval/rome_or_oslo",
        "untuned/lora:predict/lm-eval/rome_or_oslo",
    }
    assert all(figures["examples"] == 6 for figures in asked.values())
    assert asked["untuned/lora:predict/lm-eval/rome_or_oslo"]["acc"] == pytest.approx(by_likelihood(wanted))
    results = wanted.gather()
    found = next(analysis for analysis in analyses(results, []) if analysis.kind == "lm_eval")
    assert found.table is not None
    assert "lm_eval.rome_or_oslo.acc" in found.table
    assert wanted.plan().work == []
    with (spec_file.parent / "tasks" / "rows.json").open("a", encoding="utf-8") as stream:
        stream.write('{"question": "where is it ?", "label": 0}\n')
    again = wanted.plan().work
    assert {change.address.partition(":")[2] for change in again} == {"predict/lm-eval/rome_or_oslo"}


def by_likelihood(wanted: Study) -> float:
    """Return the accuracy of the untuned model by the likelihood of each label's tokens, computed here."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = wanted.spec.tables.model.path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(where).eval(), AutoTokenizer.from_pretrained(where)
    hits = 0
    for number in range(6):
        scores = []
        for label in ("rome", "oslo"):
            prompt = tokenizer(f"where is number {number} ?", add_special_tokens=False)["input_ids"]
            whole = tokenizer(f"where is number {number} ? {label}", add_special_tokens=False)["input_ids"]
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1).detach()
            scores.append(sum(float(logits[at - 1, whole[at]]) for at in range(len(prompt), len(whole))))
        hits += scores.index(max(scores)) == number % 2
    return hits / 6


def test_an_unknown_harness_task_fails_alone(spec_file: Path, harness: str) -> None:
    applied = study(spec_file, harness.replace('["rome_or_oslo"]', '["no_such_task"]'), "").apply()
    failed = applied.with_outcome("failed")
    assert {attempt.message for attempt in failed} == {'evaluate.lm_eval_tasks: lm-eval has no task "no_such_task".'}
    assert sum(attempt.outcome == "done" and attempt.kind == "score" for attempt in applied.attempts) == 4


def test_a_missing_harness_is_told_before_anything_is_paid_for(spec_file: Path, monkeypatch: Any) -> None:
    from lorafile.errors import MissingExtra

    wanted = study(spec_file, 'lm_eval_tasks = ["arc_easy"]', "")
    monkeypatch.setattr("lorafile.apply.workers.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"evaluate\.lm_eval_tasks needs lm-eval.*pip install .*\[lm-eval\]"):
        wanted.apply()
