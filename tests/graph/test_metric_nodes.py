"""Metrics in a study: what is refused where, what is predicted for them, and what is in the key of a score."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorafile import Study
from lorafile.engine.metrics.registry import unit_of
from lorafile.errors import MissingExtra, SpecError
from lorafile.plan.plan import Plan


def study(spec_file: Path, *changes: tuple[str, str]) -> Study:
    text = spec_file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    spec_file.write_text(text, encoding="utf-8")
    return Study.load(spec_file, spec_file.parent / ".lora")


def metrics(value: str) -> tuple[str, str]:
    return 'metrics = ["log_loss"]', f"metrics = {value}"


def scores(plan: Plan) -> list[dict[str, Any]]:
    return [node.settings for node in plan.graph.nodes.values() if node.kind == "score"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('["accuracy"]', 'metrics[0]: accuracy needs classes: data.format = "classification", not "completion"'),
        (
            '["log_loss", "squad_f1"]',
            'metrics[1]: squad_f1 needs passages with accepted answers: data.format = "squad"',
        ),
        ('["log_loss"]\nextract = "last-number"', "evaluate.extract: applies to exact_match, which is not among"),
        (
            '["exact_match"]\nextract = "(a"',
            'extract: should be "gsm8k", "strict-match", "flexible-extract", "last-number", or a valid regular',
        ),
        (
            '["exact_match"]\nextract = "last_number"',
            'with one group, not none: write (…); did you mean "last-number"?',
        ),
        (
            '["log_loss"]\ntokenize = "zh"',
            "evaluate.tokenize: applies to bleu, rouge1, rouge2, rougeL, and none of them is in",
        ),
        ('["rouge1"]\ntokenize = "13b"', "evaluate.tokenize: "),
        ('["exact_match"]\nextract = "a"', "a regular expression with one group, not none: write (…)"),
        ('["exact_match"]\nextract = "(a)(b)"', "not 2; write a non-capturing group as (?:…)"),
        ('["log_loss"]\naverage = "macro"', "evaluate.average: applies to f1"),
    ],
)
def test_what_does_not_go_together_is_refused_where_it_stands(spec_file: Path, value: str, told: str) -> None:
    with pytest.raises(SpecError) as error:
        study(spec_file, metrics(value)).plan()
    assert told in str(error.value)


def test_formats_that_the_spec_names_are_checked_before_any_file_is_read(spec_file: Path) -> None:
    with pytest.raises(SpecError, match=r'rouge1 needs answers, and data\.format = "text" has none'):
        study(spec_file, metrics('["rouge1"]'), ("max_length = 32", 'max_length = 32\nformat = "text"'))


def test_a_classification_head_has_metrics_and_units_of_its_own(spec_file: Path, rows_file: Path) -> None:
    rows = "".join(f"the film is {n}\t{n % 2}\n" for n in range(40))
    (spec_file.parent / "rows.tsv").write_text(f"sentence\tlabel\n{rows}", encoding="utf-8")
    head = ("[model]", '[model]\ntask_type = "SEQ_CLS"')
    wanted = study(spec_file, head, (str(rows_file), "rows.tsv"), ('metrics = ["log_loss"]', ""))
    assert set(scores(wanted.plan())[0]["metrics"]) == {"accuracy", "log_loss"}
    names = {str(name): unit_of(name) for name in wanted.gather().metrics}
    assert names == {"accuracy": "share of examples", "log_loss": "nats per example"}
    with pytest.raises(SpecError, match=r"metrics\[0\]: bleu needs a language model"):
        study(spec_file, ("[evaluate]", '[evaluate]\nmetrics = ["bleu"]')).plan()


def test_the_positive_class_is_the_last_one_and_is_in_the_key(spec_file: Path, rows_file: Path) -> None:
    rows = "".join(f"the film is {n}\t{n % 2}\n" for n in range(40))
    (spec_file.parent / "rows.tsv").write_text(f"sentence\tlabel\n{rows}", encoding="utf-8")
    wanted = study(spec_file, (str(rows_file), "rows.tsv"), metrics('["f1"]'))
    assert scores(wanted.plan())[0]["options"] == {"f1": {"pos_label": "1"}}
    named = study(spec_file, ("max_length", 'labels = { 0 = "good", 1 = "bad" }\nmax_length'))
    assert scores(named.plan())[0]["options"] == {"f1": {"pos_label": "bad"}}
    chosen = study(spec_file, ('["f1"]', '["f1"]\npos_label = "good"'))
    assert scores(chosen.plan())[0]["options"] == {"f1": {"pos_label": "good"}}
    with pytest.raises(SpecError, match=r'evaluate\.pos_label: "fine" is not a class of the data: good, bad'):
        study(spec_file, ('"good"\nmax_new', '"fine"\nmax_new')).plan()


def test_extraction_is_in_the_key_of_the_score_and_only_when_it_is_set(spec_file: Path) -> None:
    plain = study(spec_file, metrics('["exact_match", "log_loss"]')).plan()
    assert scores(plain)[0] == {"metrics": {"exact_match": 1, "log_loss": 1}}
    predicted = {node.key for node in plain.graph.nodes.values() if node.kind == "predict"}
    extracted = study(spec_file, ('"log_loss"]', '"log_loss"]\nextract = "last-number"')).plan()
    assert scores(extracted)[0]["options"] == {"exact_match": {"extract": "last-number"}}
    assert {node.key for node in extracted.graph.nodes.values() if node.kind == "predict"} == predicted


def test_a_missing_library_is_told_before_anything_is_paid_for(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = study(spec_file, metrics('["log_loss", "bleu"]'))
    monkeypatch.setattr("lorafile.apply.workers.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"The metric bleu needs sacrebleu.*pip install .*\[metrics\]"):
        wanted.apply()
    assert not list((spec_file.parent / ".lora").glob("objects/*/*"))


def test_figures_of_answers_reach_the_results_with_the_outcomes_of_examples(spec_file: Path) -> None:
    pytest.importorskip("torch")
    from lorafile.files.jsonl import read_lines
    from lorafile.state import State

    names = ["log_loss", "exact_match", "bleu", "chrf", "rougeL"]
    wanted = study(spec_file, metrics(str(names).replace("'", '"')))
    applied = wanted.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    runs = wanted.gather().runs
    for name in names:
        assert runs[f"test.{name}"].notna().all()
    scored = next(attempt for attempt in applied.attempts if attempt.kind == "score")
    objects = State.read(spec_file.parent / ".lora").objects
    rows = list(read_lines(objects.path(scored.outputs["outcomes.jsonl.gz"])))
    assert set(rows[0]) == {"row", "tokens", *names, "bleu.influence", "chrf.influence"}
    mean = sum(row["log_loss"] * row["tokens"] for row in rows) / sum(row["tokens"] for row in rows)
    assert scored.figures["log_loss"] == pytest.approx(mean)


def test_scores_of_conversations_alone_say_that_they_skip_a_block_of_reasoning(spec_file: Path) -> None:
    """Of other data nothing changes: no key of theirs says anything of it."""
    plain = spec_file.read_text(encoding="utf-8") + '[[sweep]]\nname = "rank"\nlora.r = [2]\n'
    spec_file.write_text(plain, encoding="utf-8")
    assert ["reasoning" in settings for settings in scores(study(spec_file).plan())] == [False, False] * 2
    rows = [[{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": f"A{n}"}] for n in range(40)]
    lines = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    spec_file.with_name("chats.jsonl").write_text(lines, encoding="utf-8")
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    spec_file.with_name("chat.jinja").write_text(template, encoding="utf-8")
    path = plain.partition("[data]\n")[2].partition("\n")[0]
    chats = plain.replace(path, 'path = "chats.jsonl"\nchat_template = "chat.jinja"')
    spec_file.write_text(chats, encoding="utf-8")
    assert [settings["reasoning"] for settings in scores(study(spec_file).plan())] == [2, 2] * 2
    spec_file.write_text(chats.replace("[evaluate]", "[evaluate]\nstrip_reasoning = false"), encoding="utf-8")
    assert all("reasoning" not in settings for settings in scores(study(spec_file).plan()))
