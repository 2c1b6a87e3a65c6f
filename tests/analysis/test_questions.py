"""The seven questions, asked by their names."""

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
import scipy.stats
from results_fixture import study

from lorafile.analysis.overview.questions import QUESTIONS
from lorafile.analysis.registry import analyses
from lorafile.results.results import Results, row_dicts
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
    assert "Compared with rank/r=8, in exact match on test, worse: rank/r=1 (−" in text
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
    told = "rank/r=2 was timed while the machine was busy with other work: do not rely on these times."
    spread = (RESULTS.profiles["configuration"] == "rank/r=2").map({True: 1.8, False: 0.04})
    busy = replace(RESULTS, profiles=RESULTS.profiles.assign(generate_spread=spread))
    for tables in ([AnalysisTable.model_validate({"ask": "inference-speed"})], [AnalysisTable(kind="cost")]):
        assert told in next(iter(analyses(busy, tables))).sentences
        assert told not in next(iter(analyses(RESULTS, tables))).sentences


def yardsticks(seconds: float = 0.6, **by_name: float) -> Results:
    """Return the results with the bare base timed next to each profile: a token in 20 ms on the base of all."""
    rows = RESULTS.profiles
    names, bases = rows["configuration"], RESULTS.setting("quantization")
    slow = names.map({"quantization/quantization=int8": 1.9, "quantization/quantization=nf4": 1.3}).fillna(1.0)
    answers = names.map(by_name).fillna(seconds) * slow
    more = {"base_generate_seconds": answers, "base_token_seconds": 0.02 * slow, "base": names.map(bases)}
    return replace(RESULTS, profiles=rows.assign(**more))


def asked(results: Results, **table: Any) -> Any:
    return next(iter(analyses(results, [AnalysisTable.model_validate(table)])))


def test_speed_is_quoted_against_the_bare_base_in_the_same_process() -> None:
    text = "\n".join(asked(yardsticks(), ask="inference-speed").sentences)
    change = 0.019 * 1.4 / 0.02 - 1
    assert f"An attached adapter changes the time per token by +{100 * change:.1f}" in text
    assert "compared with the bare base in the same process" in text
    assert "A merged adapter changes the time per token by −4.5" in text, "19.1 ms against 20"


def test_a_profile_whose_bare_base_took_longer_is_in_no_sentence_and_no_chart_on_speed() -> None:
    results = yardsticks(**{"rank/r=32": 0.9})
    found = asked(results, kind="cost")
    assert "rank/r=32 was timed while the machine was busy with other work" in "\n".join(found.sentences)
    assert "rank/r=32" not in json.dumps(found.charts["cost-latency"].to_dict())
    assert "Not drawn (1): rank/r=32" in found.captions["cost-latency"]
    marked = {row["configuration"]: row["times"] for row in row_dicts(found.table)}
    assert [name for name, times in marked.items() if times] == ["rank/r=32"]
    assert "times" in [column.key for column in found.tables[0].columns]
    front = asked(results, kind="pareto", measures=["exact_match", "token_latency"])
    assert "rank/r=32" not in set(front.table["configuration"])
    assert "rank/r=32 (it is not measurable here: the machine was busy with other work)" in "\n".join(front.sentences)
    cheapest = {"cheapest": {"token_latency": "1s", "prefer": "token_latency"}}
    assert "rank/r=32" not in next(iter(asked(results, kind="recommend", budgets=cheapest).sentences))


def test_where_no_profile_can_be_trusted_nothing_is_said_of_speed_but_how_to_measure_it() -> None:
    busy = replace(RESULTS, profiles=RESULTS.profiles.assign(generate_spread=2.0), file="study.toml")
    (sentence,) = asked(busy, ask="inference-speed").sentences
    count = f"{len(RESULTS.profiles)} profiles."
    busily = f"the machine was busy with other work during {count}"
    assert sentence.startswith(f"Inference speed is not measurable here: {busily}")
    assert sentence.endswith("lora apply study.toml --replace '*:profile'")
    found = asked(busy, kind="cost")
    assert sentence in found.sentences
    assert "cost-latency" not in found.charts


def test_a_training_time_whose_interval_begins_at_zero_is_not_measurable() -> None:
    """Of 1, 1 and 300 s the mean's 95 % interval by Student's t with two degrees of freedom begins far below zero."""
    runs = RESULTS.runs.copy()
    of_one = runs["configuration"] == "rank/r=4"
    runs.loc[of_one, "seconds"] = [1.0, 1.0, 300.0]
    assert scipy.stats.t.interval(0.95, 2, 302 / 3, scipy.stats.sem([1, 1, 300]))[0] < 0
    found = asked(replace(RESULTS, runs=runs), kind="cost")
    text = "\n".join(found.sentences)
    assert "The training time of rank/r=4 is not measurable here" in text
    assert "rank/r=4" not in text.partition("Training time goes from ")[2].partition(".\n")[0]


def test_lora_or_full_holds_the_best_lora_on_validation_against_full_and_untuned() -> None:
    text = said("lora-or-full")
    assert (
        "Compared with modules/target_modules=all-linear, in exact match on test, worse: baselines/method=none" in text
    )
    assert "inconclusive: baselines/method=full (" in text


def test_a_study_of_adapters_alone_is_not_asked_about_full_fine_tuning() -> None:
    others = {"none": "ia3", "full": "miss"}
    configurations = RESULTS.configurations.assign(method=RESULTS.configurations["method"].replace(others))
    adapters = replace(RESULTS, configurations=configurations)
    alone = next(a for a in analyses(adapters, []) if a.name == "question-lora-or-full")
    assert alone.title == "How do the methods compare?"
    with_full = next(a for a in analyses(RESULTS, []) if a.name == "question-lora-or-full")
    assert with_full.title.startswith("Is LoRA as good as full fine-tuning")


def test_real_or_noise_counts_what_is_real() -> None:
    assert said("real-or-noise").startswith("Of 14 comparisons, ")


def test_what_a_study_says_nothing_of_is_said_to_who_asks_and_to_nobody_else() -> None:
    small = replace(RESULTS, configurations=RESULTS.configurations.drop(columns="quantization"))
    (asked,) = analyses(small, [AnalysisTable.model_validate({"ask": "quantization"})])
    assert asked.sentences == ["This study cannot answer that: no sweep varies quantization."]
    assert "question-quantization" not in {found.name for found in analyses(small, [])}


@pytest.mark.parametrize("wrong", [{}, {"kind": "compare", "ask": "rank"}])
def test_a_table_asks_one_thing(wrong: dict[str, str]) -> None:
    from pathlib import Path

    from lorafile.errors import SpecError
    from lorafile.specs.load import parse

    lines = "\n".join(f'{key} = "{value}"' for key, value in wrong.items())
    text = f'[study]\nname = "s"\n[model]\npath = "m"\n[data]\npath = "d"\n[[analysis]]\n{lines}\n'
    with pytest.raises(SpecError, match=r"sets both|is empty"):
        parse(text, Path("s.toml"))


def test_the_page_and_the_document_answer_them_at_the_top() -> None:
    from lorafile.report.html import page
    from lorafile.report.markdown import document

    found = analyses(RESULTS, [AnalysisTable(kind="summary"), AnalysisTable(ask="rank"), AnalysisTable(kind="cost")])
    asked = replace(RESULTS, declared=(AnalysisTable(ask="rank"),))
    for text, after in ((page(RESULTS, found), 'section id="cost"'), (document(asked, found), "**Cost.**")):
        assert text.count(QUESTIONS["rank"].text) >= 1
        assert text.index(QUESTIONS["rank"].text) < text.index(after)


def test_a_training_time_is_the_median_of_its_seeds() -> None:
    from lorafile.analysis.tradeoffs.cost import cost_rows

    runs = RESULTS.runs.copy()
    mine = runs.index[runs["configuration"] == "rank/r=8"]
    runs.loc[mine, "seconds"] = [10.0, 11.0, 100.0]
    row = next(row for row in cost_rows(replace(RESULTS, runs=runs)) if row["configuration"] == "rank/r=8")
    assert (row["seconds"], row["seconds.low"], row["seconds.high"]) == (11, 10, 100)
