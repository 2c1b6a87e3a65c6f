"""The seven questions, asked by their names."""

from dataclasses import replace
from typing import get_args

import pytest
from results_fixture import study

from lorafile.analysis.overview.questions import QUESTIONS
from lorafile.analysis.registry import analyses
from lorafile.specs.tables.analysis import AnalysisTable, Question

RESULTS = study()


def said(name: str) -> str:
    """Return the answer to a question."""
    (found,) = analyses(RESULTS, [AnalysisTable.model_validate({"ask": name})])
    return "\n".join(found.sentences)


def test_every_question_has_its_words() -> None:
    assert set(get_args(Question)) == set(QUESTIONS)


def test_rank_answers_with_verdicts_and_with_memory() -> None:
    text = said("rank")
    assert "Against rank/r=8, in exact match on test, worse: rank/r=1 (−" in text
    assert "Peak training memory by r: 4.37 GB (1)" in text


def test_placement_answers_for_modules_and_for_layers() -> None:
    text = said("placement")
    assert "target_modules=mlp" in text
    assert "layers_to_transform=0-7" in text


def test_quantization_answers_with_what_it_costs_and_saves() -> None:
    text = said("quantization")
    assert "quantization=nf4" in text
    assert "Peak memory while generating by quantization: 2.72 GB (none), 1.65 GB (int8) and 1.13 GB (nf4)." in text


def test_inference_speed_holds_an_attached_adapter_against_the_bare_base() -> None:
    assert "An attached adapter changes the time per token by +40.0" in said("inference-speed")


def test_times_of_a_machine_that_did_other_work_are_not_passed_on_as_if_it_was_idle() -> None:
    told = "rank/r=2 was timed while the machine did other work: these times are not to be trusted."
    spread = (RESULTS.profiles["configuration"] == "rank/r=2").map({True: 1.8, False: 0.04})
    busy = replace(RESULTS, profiles=RESULTS.profiles.assign(generate_spread=spread))
    for tables in ([AnalysisTable.model_validate({"ask": "inference-speed"})], [AnalysisTable(kind="cost")]):
        assert told in next(iter(analyses(busy, tables))).sentences
        assert told not in next(iter(analyses(RESULTS, tables))).sentences


def test_lora_or_full_holds_the_best_lora_on_validation_against_full_and_untuned() -> None:
    text = said("lora-or-full")
    assert "Against modules/target_modules=all-linear, in exact match on test, worse: baselines/method=none (−" in text
    assert "inconclusive: baselines/method=full (" in text


def test_real_or_noise_counts_what_is_real() -> None:
    assert said("real-or-noise").startswith("Of 14 comparisons, ")


def test_what_a_study_says_nothing_of_is_said_to_who_asks_and_to_nobody_else() -> None:
    small = replace(RESULTS, configurations=RESULTS.configurations.drop(columns="quantization"))
    (asked,) = analyses(small, [AnalysisTable.model_validate({"ask": "quantization"})])
    assert asked.sentences == ["This study says nothing of it: no sweep varies quantization."]
    assert "question-quantization" not in {found.name for found in analyses(small, [])}


@pytest.mark.parametrize("wrong", [{}, {"kind": "compare", "ask": "rank"}])
def test_a_table_asks_one_thing(wrong: dict[str, str]) -> None:
    from pathlib import Path

    from lorafile.errors import SpecError
    from lorafile.specs.load import parse

    lines = "\n".join(f'{key} = "{value}"' for key, value in wrong.items())
    text = f'[study]\nname = "s"\n[model]\npath = "m"\n[data]\npath = "d"\n[[analysis]]\n{lines}\n'
    with pytest.raises(SpecError, match=r"names both|says nothing"):
        parse(text, Path("s.toml"))


def test_the_page_and_the_document_answer_them_at_the_top() -> None:
    from lorafile.report.html import page
    from lorafile.report.markdown import document

    found = analyses(RESULTS, [AnalysisTable(kind="summary"), AnalysisTable(ask="rank"), AnalysisTable(kind="cost")])
    asked = replace(RESULTS, declared=(AnalysisTable(ask="rank"),))
    for text, after in ((page(RESULTS, found), 'section id="cost"'), (document(asked, found), "**Cost.**")):
        assert text.count(QUESTIONS["rank"].text) >= 1
        assert text.index(QUESTIONS["rank"].text) < text.index(after)
