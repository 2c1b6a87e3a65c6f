"""Where answers end: before another solved example, and at the most new tokens, which references have to fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorafile import Study
from lorafile.engine.data.templates import next_shot
from lorafile.errors import SpecError
from lorafile.plan.plan import Plan

SPEC = """
[study]
name = "s"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "rows.jsonl"
split = {{ train = 8, validation = 4, test = 4 }}
{data}
[evaluate]
metrics = ["exact_match"]
{evaluate}
[profile]
enabled = false
[[sweep]]
name = "shots"
method = ["none"]
none.shots = [0, 2]
"""


def plan(folder: Path, data: str = "", evaluate: str = "", **columns: str) -> Plan:
    row = columns or {"question": "what is {n} ?", "answer": "it is {n}"}
    rows = [{name: text.format(n=n) for name, text in row.items()} for n in range(16)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "study.toml").write_text(SPEC.format(data=data, evaluate=evaluate), encoding="utf-8")
    return Study.load(folder / "study.toml", folder / ".lora").plan()


def tasks(made: Plan) -> dict[str, dict[str, Any]]:
    """Configuration -> what is asked of its test split."""
    nodes = [node for node in made.graph.nodes.values() if node.kind == "predict" and node.split == "test"]
    return {node.configuration: node.settings["task"] for node in nodes}


@pytest.mark.parametrize(
    ("data", "row", "stops"),
    [
        ('format = "question"', {}, ["\n\nQuestion:"]),
        ('template = { prompt = "Q: {question}\\nA:", completion = " {answer}" }', {}, ["\n\nQ:"]),
        ('template = { prompt = "{question}\\nA:", completion = " {answer}" }', {}, ["\n\n"]),
        ('format = "completion"', {"prompt": "say {n}", "completion": " {n}"}, ["\n\n"]),
        ('template = { prompt = "\\nDo it.\\n{question}", completion = " {answer}" }', {}, ["\n\nDo it."]),
        (
            'format = "alpaca"',
            {"instruction": "say {n}", "output": "{n}"},
            ["\n\nBelow is an instruction that describes a task"],
        ),
    ],
)
def test_an_answer_ends_where_another_example_would_begin(
    tmp_path: Path, data: str, row: dict[str, str], stops: list[str]
) -> None:
    made = plan(tmp_path, data, **row)
    found = tasks(made)
    assert found["shots/method=none,shots=2"] == {**found["shots/method=none,shots=0"], "stop_strings": stops}
    assert any("first blank line" in line for line in made.warnings) is (stops == ["\n\n"])


@pytest.mark.parametrize("own", [["END"], []])
def test_a_spec_s_own_strings_win(tmp_path: Path, own: list[str]) -> None:
    made = plan(tmp_path, evaluate=f"stop_strings = {json.dumps(own)}")
    assert {json.dumps(task.get("stop_strings", [])) for task in tasks(made).values()} == {json.dumps(own)}
    assert not any("blank line" in line for line in made.warnings)


def test_each_format_has_its_beginning() -> None:
    def of(form: str, **more: str) -> list[str]:
        return next_shot({"format": form, "template": None, **more})

    assert of("guanaco") == ["### Human:"]
    assert of("classification") == ["\n\nText:", "\n\nSentence 1:"]
    assert of("squad", unanswerable="none") == ['\n\nIf the text below does not answer the question, write "']
    assert of("squad", unanswerable="") == ["\n\n"]
    assert of("builtin:facts") == ["\n\nquestion :"]


def test_references_that_do_not_fit_are_named_from_the_lock(tmp_path: Path) -> None:
    """Ten words of four letters and a space are 50 characters, more than 8 tokens of six."""
    row = {"question": "why {n} ?", "answer": "word " * 10}
    assert not [line for line in plan(tmp_path, **row).warnings if "max_new_tokens" in line]
    (line,) = [text for text in plan(tmp_path, evaluate="max_new_tokens = 7", **row).warnings if "max_new" in text]
    assert line.startswith("evaluate.max_new_tokens: 7 tokens are too few for every reference (")
    assert "(validation and test: drawn from answers of up to 50 characters); longer answers are cut off" in line


def test_a_set_of_the_catalogue_brings_what_fits_its_answers(tmp_path: Path) -> None:
    found = tasks(plan(tmp_path, 'like = "gsm8k"'))
    assert found["shots/method=none,shots=0"]["max_new_tokens"] == 512
    assert {tuple(task["stop_strings"]) for task in found.values()} == {("Question:",)}
    scores = [node.settings for node in plan(tmp_path, 'like = "gsm8k"').graph.nodes.values() if node.kind == "score"]
    assert {json.dumps(section["options"]) for section in scores} == {'{"exact_match": {"extract": "gsm8k"}}'}
    own = 'extract = "last-number"\nmax_new_tokens = 3\nstop_strings = ["x"]'
    section, task = plan(tmp_path, 'like = "gsm8k"', own), {"do_sample": False, "output": "generation"}
    assert tasks(section)["shots/method=none,shots=0"] == {**task, "max_new_tokens": 3, "stop_strings": ["x"]}
    prompt = 'like = "gsm8k"\ntemplate = { prompt = "{question}", completion = " {answer}" }'
    assert tasks(plan(tmp_path, prompt))["shots/method=none,shots=0"] == {**task, "max_new_tokens": 512}


def test_extraction_is_brought_only_where_something_reads_it(tmp_path: Path) -> None:
    made = plan(tmp_path, 'like = "gsm8k"', "")
    text = (tmp_path / "study.toml").read_text(encoding="utf-8").replace('"exact_match"', '"log_loss"')
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    other = Study.load(tmp_path / "study.toml", tmp_path / ".lora").plan()
    assert made.graph.spec.tables.evaluate.extract == "gsm8k"
    assert other.graph.spec.tables.evaluate.extract is None


@pytest.mark.parametrize(
    ("answers", "said", "phrase"),
    [
        (['{{"text": ["it is {n}"], "answer_start": [0]}}'] * 2, "", ""),
        (['{{"text": ["it is {n}"]}}', '{{"text": []}}'], "", "unanswerable"),
        (['["it is {n}"]', "[]"], "", "unanswerable"),
        (['["it is {n}"]'] * 2, 'unanswerable = "none"', "none"),
        (['["it is {n}"]', "[]"], 'columns = { answers = "gold" }', "unanswerable"),
    ],
)
def test_the_prompt_offers_no_answer_only_where_the_data_have_such_rows(
    tmp_path: Path, answers: list[str], said: str, phrase: str
) -> None:
    column = "gold" if "gold" in said else "answers"
    rows = [
        {"context": f"it is {n}", "question": "what ?", column: json.loads(answers[n % 2].format(n=n))}
        for n in range(16)
    ]
    text = SPEC.format(data=f'format = "squad"\n{said}', evaluate="")
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    study = Study.load(tmp_path / "study.toml", tmp_path / ".lora")
    made = study.plan()
    data = [node.settings["data"] for node in made.graph.nodes.values() if node.kind == "prepare"]
    offered = {section["unanswerable"] for section in data if "clusters" not in section}
    assert offered == {phrase}


def test_percentage_points_of_a_metric_without_any_are_refused(tmp_path: Path) -> None:
    (tmp_path / "brevity.py").write_text('UNIT = "characters"\ndef score(row): return 1\n', encoding="utf-8")
    (tmp_path / "share.py").write_text('UNIT = "share of words"\ndef score(row): return 1\n', encoding="utf-8")
    margin = 'metrics = ["{}"]\n[verdict]\nmargin = "1pt"'
    for metric, told in (
        (
            "matthews_correlation",
            "verdict.margin: 1pt is in percentage points, and matthews_correlation is not a percentage",
        ),
        ("brevity.py", 'verdict.margin: 1pt is in percentage points, and the unit of brevity is "characters"; write'),
        ("share.py", ""),
    ):
        text = SPEC.format(data="", evaluate="").replace('metrics = ["exact_match"]', margin.format(metric))
        (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n' * 16, encoding="utf-8")
        (tmp_path / "study.toml").write_text(text, encoding="utf-8")
        if not told:
            assert Study.load(tmp_path / "study.toml", tmp_path / ".lora").plan().changes
            continue
        with pytest.raises(SpecError) as error:
            Study.load(tmp_path / "study.toml", tmp_path / ".lora").plan()
        assert told in str(error.value)
