from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recommend_fixture import FIGURES, LARGE, MIDDLE, SMALL, UNTUNED, made
from scipy import stats
from spec_fixture import parse

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.overview.first_screen import first_screen
from lorafile.analysis.recommend.budgets import budget_of
from lorafile.analysis.recommend.choice import Recommendation
from lorafile.analysis.recommend.recommend import recommendations
from lorafile.analysis.recommend.text import brief
from lorafile.analysis.registry import analyses
from lorafile.errors import SpecError
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable, BudgetTable


def table(**settings: Any) -> AnalysisTable:
    return AnalysisTable.model_validate({"kind": "recommend", "profiles": ["cheapest"]} | settings)


def one(results: Results, **settings: Any) -> Recommendation:
    (found,) = recommendations(results, table(**settings))
    return found


def analysis(results: Results, **settings: Any) -> Analysis:
    (found,) = analyses(results, [table(**settings)])
    return found


def said(results: Results, **settings: Any) -> str:
    return " ".join(analysis(results, **settings).sentences).replace("\u202f", " ")


def test_the_cheapest_that_is_shown_to_be_good_enough_is_recommended_and_quoted_on_test() -> None:
    found = one(made(FIGURES), margin="5pt")
    assert (found.taken, found.firm, found.claimed) == (MIDDLE, True, (MIDDLE, LARGE))
    text = said(made(FIGURES), margin="5pt")
    assert f"take {MIDDLE}, the cheapest (3.00 GB peak training memory and 3.00 MB saved size) of the 2 of 4" in text
    assert "less than 5.0 points worse than the best in exact match on test" in text
    half = 100 * stats.t.ppf(0.975, 6) * 0.01 / 3**0.5
    quoted = f"79.0 % (95 % interval {79 - half:.1f} % to {79 + half:.1f} %)"
    assert f"Its result on test: {quoted}." in text


def test_best_quality_takes_the_best_mean_of_what_is_good_enough() -> None:
    assert one(made(FIGURES), margin="5pt", profiles=["best-quality"]).taken == LARGE


def test_a_limit_leaves_out_what_exceeds_it_and_the_best_of_the_rest_counts() -> None:
    found = one(made(FIGURES), margin="5pt", profiles=[], budgets={"laptop": "2500MB"})
    assert found.taken == SMALL
    assert found.refused[LARGE][0].text == "its peak training memory is 9.00 GB"
    assert found.looser == (("train_memory", 3e9, MIDDLE),)
    assert "With 3.00 GB peak training memory, it would be a/r=4." in said(
        made(FIGURES), margin="5pt", profiles=[], budgets={"laptop": "2500MB"}
    )


def test_the_next_cheaper_one_says_by_how_much_it_misses() -> None:
    text = said(made(FIGURES), margin="5pt")
    assert "Of the cheaper ones, a/r=1 scored 19.0 points lower (95 % interval −21.0 to −17.0)" in text
    assert "The whole interval lies beyond the margin of" in text
    assert "at 67 % of the peak training memory" in text


def test_without_a_margin_there_is_a_set_that_may_be_best_and_no_verdict() -> None:
    found = one(made(FIGURES))
    assert (found.taken, found.firm, found.word(SMALL)) == (MIDDLE, False, f"behind {LARGE}")
    assert "no verdict. 2 of 4 may be the best in exact match on test (a/r=4 and a/r=16)" in said(made(FIGURES))
    assert f"Take {LARGE} to be safe: it has the best mean. {MIDDLE} is the cheapest of these" in said(made(FIGURES))
    assert "Set a margin" in said(made(FIGURES))


def test_with_one_seed_there_is_no_verdict() -> None:
    text = said(made({name: values[:1] for name, values in FIGURES.items()}), margin="5pt")
    assert (
        "no verdict, since one seed is not enough for one on configurations. Of these runs, a/r=16 has the best" in text
    )
    assert "take" not in text


def test_what_is_undecided_says_what_would_decide_it() -> None:
    noisy = FIGURES | {MIDDLE: (0.70, 0.80, 0.90), LARGE: (0.71, 0.81, 0.91)}
    text = said(made(noisy), margin="5pt")
    assert "inconclusive: none of 4 candidates is shown to be less than 5.0 points worse than the best" in text
    assert f"Take {LARGE} to be safe: it has the best mean. {MIDDLE} is the cheapest whose mean is within 5.0" in text
    assert f"{MIDDLE} scored 1.0 points lower" in text
    assert f"more seeds would show whether {MIDDLE} is within 5.0 points of {LARGE} (80 % power" in text


def test_below_three_seeds_it_says_so() -> None:
    assert "fewer than 3 seeds, so treat these results as preliminary" in said(
        made({name: values[:2] for name, values in FIGURES.items()}), margin="5pt"
    )


def test_a_configuration_whose_trainer_failed_a_check_is_taken_only_where_nothing_else_is_left() -> None:
    results = made(FIGURES)
    runs = results.runs.copy()
    failed = "trainer.mine: its learning rates are not the planned ones. They were a tenth."
    runs["failed_checks"] = [failed if name == MIDDLE else None for name in runs["configuration"]]
    results = replace(results, runs=runs)
    expected = "Excluded from the choice: a/r=4 (trainer.mine: its learning rates are not the planned ones)."
    assert analysis(results, margin="5pt").sentences[0] == expected
    assert one(results, margin="5pt").taken == LARGE


def test_a_configuration_with_diverged_runs_is_named_first_and_taken_only_where_nothing_else_is_left() -> None:
    results = made(FIGURES | {MIDDLE: (0.79, 0.80, "diverged")})
    assert analysis(results, margin="5pt").sentences[0] == "Excluded from the choice: a/r=4 (1 of 3 runs diverged)."
    assert one(results, margin="5pt").taken == LARGE
    alone = one(results, margin="5pt", profiles=[], budgets={"e": {"trainable_share": 0.0035, "adapter_size": "3MB"}})
    assert alone.refused.keys() >= {MIDDLE} and alone.taken == SMALL
    left = made({MIDDLE: (0.79, 0.80, "diverged"), LARGE: FIGURES[LARGE]})
    assert one(left, profiles=[], budgets={"laptop": "4GB"}).taken == MIDDLE
    assert "a/r=4 is named only because nothing else is eligible (1 of 3 runs diverged)" in said(
        left, profiles=[], budgets={"laptop": "4GB"}
    )


def test_where_nothing_keeps_within_a_budget_the_limits_and_the_nearest_miss_are_named() -> None:
    trained = made({name: values for name, values in FIGURES.items() if name != UNTUNED})
    text = said(trained, profiles=[], budgets={"toy": {"train_memory": "1GB", "token_latency": "30ms"}})
    assert "Of 3: 3 over the peak training memory and 3 without a measured time per token, attached." in text
    near = said(trained, profiles=[], budgets={"toy": "1GB"})
    assert "The nearest miss is a/r=1: its peak training memory is 2.00 GB." in near


def test_a_single_eligible_configuration_is_no_choice() -> None:
    trained = made({name: values for name, values in FIGURES.items() if name != UNTUNED})
    text = said(trained, margin="5pt", profiles=[], budgets={"toy": "2GB"})
    assert "a/r=1, the only configuration that is within these limits" in text


def test_a_server_refuses_with_its_reason() -> None:
    refusals = {("vllm", name): () for name in FIGURES} | {("vllm", MIDDLE): ("it does not support DoRA (use_dora)",)}
    found = one(made(FIGURES, refusals=refusals), margin="5pt", profiles=[], budgets={"s": {"servable": "vllm"}})
    assert [row.text for row in found.refused[MIDDLE]] == ["vLLM: it does not support DoRA (use_dora)"]
    assert found.taken == LARGE


def test_memory_of_a_cpu_and_of_another_device_is_named_as_such() -> None:
    profiles = pd.DataFrame(
        [{"configuration": name, "device": "cpu", "train_allocated_bytes": 1e6} for name in (SMALL, MIDDLE)]
        + [{"configuration": LARGE, "device": "L4", "train_allocated_bytes": 1e9}]
    )
    results = made(FIGURES, profiles=profiles)
    assert "measured on a CPU, as live tensors: it says little about memory on a GPU" in said(results, margin="5pt")
    found = one(results, profiles=[], budgets={"laptop": "8GB"})
    assert found.refused[LARGE][0].text == "its peak training memory was only measured on L4"


def test_what_a_first_look_shows_stands() -> None:
    """The second look's seeds differ too much to show anything, and its share of alpha is smaller."""
    figures = {
        name: values if name == UNTUNED else (*values, values[0] - 0.3, values[0]) for name, values in FIGURES.items()
    }
    results = made(figures, looks=((1, 2, 3), (4, 5)))
    assert one(results, margin="5pt").claimed == (MIDDLE, LARGE)
    assert not one(made(figures), margin="5pt").firm


def test_without_memory_profiles_size_decides_and_memory_budgets_are_not_asked() -> None:
    results = made(FIGURES, profiles=pd.DataFrame())
    found = recommendations(results, AnalysisTable(kind="recommend", margin="5pt"))
    assert [budget.name for each in found for budget in each.budgets] == ["best-quality", "cheapest"]
    assert found[1].prefer == "adapter_size"
    assert "The peak training memory was not measured, so saved size decides which is cheaper." in said(
        results, margin="5pt"
    )


def test_where_nothing_generates_the_shipped_budgets_limit_training_alone() -> None:
    found = recommendations(made(FIGURES), AnalysisTable(kind="recommend", margin="5pt"))
    limits = {budget.name: budget.limits for each in found for budget in each.budgets}
    assert (limits["consumer-8GB"], limits["workstation-24GB"]) == ({"train_memory": 8e9}, {"train_memory": 24e9})
    assert next(each for each in found if each.budget.name == "consumer-8GB").order


def test_the_first_answer_is_that_of_the_budget_without_limits() -> None:
    """Where the cheapest is the best, `best-quality` and `cheapest` come to the same, and share one recommendation."""
    declared = table(budgets={"tiny": "1MB"}, profiles=["best-quality", "cheapest"])
    figures: dict[str, tuple[float | str, ...]] = {SMALL: (0.83, 0.84, 0.85), LARGE: (0.8, 0.81, 0.82)}
    screen = first_screen(made(figures, declared=(declared,)), [])
    assert screen is not None
    assert screen.sentences[0].startswith(f"{SMALL} (83.0\u202f%")


def test_the_first_table_calls_each_candidate_what_the_sentence_does() -> None:
    """Without a margin nothing is recommended: the best mean is the safe choice, and the cheapest is no suggestion."""
    figures: dict[str, tuple[float | str, ...]] = {SMALL: (0.72, 0.80, 0.88), LARGE: (0.73, 0.81, 0.89)}
    screen = first_screen(made(figures), [])
    assert screen is not None and screen.table is not None
    roles = dict(zip(screen.table.frame["configuration"], screen.table.frame["role"], strict=True))
    assert roles[LARGE].startswith("safe choice")
    assert roles[SMALL] == "cheapest that may be best"
    assert screen.sentences[0].startswith(f"{LARGE} (80.0\u202f%") and "is the safe choice" in screen.sentences[0]


def test_amounts_are_read_in_their_units() -> None:
    budget = budget_of("e", BudgetTable(train_memory="7.5GiB", token_latency="30ms", train_time="2h", step_time="90s"))
    assert budget.limits == {
        "train_memory": 7.5 * 2**30,
        "token_latency": 0.03,
        "train_time": 7200.0,
        "step_time": 90.0,
    }


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        ('{ laptop = "30ms" }', 'analysis[0].budgets.laptop: should be a size such as "24GB" or "7.5GiB" or a table'),
        ('{ e = { train_memory = "2h" } }', 'budgets.e.train_memory: should be a size such as "24GB"'),
        ('{ e = { token_latency = "8GB" } }', 'budgets.e.token_latency: should be a time such as "30ms"'),
        ('{ e = { adpter_size = "8GB" } }', 'budgets.e.adpter_size: unknown setting; did you mean "adapter_size"?'),
    ],
)
def test_an_amount_in_the_wrong_unit_is_located(budgets: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(f'[[analysis]]\nkind = "recommend"\nbudgets = {budgets}')
    assert told in str(caught.value)


def test_a_limit_that_nothing_measures_is_located() -> None:
    budgets = 'budgets = { laptop = "8GB", e = { adapter_size = "2MB" } }'
    spec = f'[profile]\nenabled = false\n[[analysis]]\nkind = "recommend"\n{budgets}'
    with pytest.raises(SpecError) as caught:
        parse(spec)
    assert "analysis[0].budgets.laptop: limits train_memory, which only a profile measures" in str(caught.value)
    assert "budgets.e" not in str(caught.value)


def test_every_candidate_is_drawn_with_the_margin_and_the_table_has_every_configuration() -> None:
    found = analysis(made(FIGURES), margin="5pt", profiles=["cheapest"])
    (chart,) = found.charts.values()
    rows = next(rows for rows in chart.to_dict()["datasets"].values() if "from" in rows[0])
    assert rows == [{"from": -5.0, "to": 0.0}]
    frame = found.table
    assert frame is not None and len(frame) == len(FIGURES)
    assert frame["verdict"].iloc[0] == "recommended"
    assert np.isfinite(frame["low"].iloc[0])


NOISY = "a/r=2"


def test_what_scatters_and_is_worse_on_average_holds_up_nobody_and_is_named() -> None:
    """A rival of which little is known, 26 points lower: without setting it aside nothing could be claimed."""
    results = made(FIGURES | {NOISY: (0.25, 0.55, 0.85)})
    found = one(results, margin="5pt")
    assert (found.taken, found.firm, found.word(NOISY)) == (MIDDLE, True, "scatters")
    assert f"{NOISY} is excluded: its mean is 26.0 points worse than the best on validation" in said(
        results, margin="5pt"
    )


def test_what_scatters_as_much_and_is_not_worse_is_a_rival() -> None:
    found = one(made(FIGURES | {NOISY: (0.5, 0.8, 1.1)}), margin="5pt")
    assert not found.firm and not found.scattered


def test_points_of_a_rate_sweep_that_validation_does_not_prefer_are_no_candidates() -> None:
    results = made(FIGURES)
    rates = {SMALL: 1e-4, MIDDLE: 1e-3, LARGE: 1e-4}
    settings = [{"train.learning_rate": rates.get(name), "lora.r": 16 if name == LARGE else 4} for name in FIGURES]
    table = pd.concat([results.configurations, pd.DataFrame(settings)], axis=1)
    found = one(replace(results, configurations=table), margin="5pt")
    assert found.other_rates == {SMALL: MIDDLE} and SMALL not in found.order
    assert "1 configuration with a better learning rate on validation" in said(
        replace(results, configurations=table), margin="5pt"
    )


def test_what_was_chosen_on_validation_is_tested_on_test_and_else_called_optimistic() -> None:
    results = made(FIGURES)
    assert one(results, margin="5pt").split == "test"
    runs = results.runs.drop(columns="test.exact_match")
    only = replace(
        results, runs=runs, outcomes={key: frame for key, frame in results.outcomes.items() if "test" not in key}
    )
    assert one(only, margin="5pt").split == "validation"
    assert "validation was used both to choose and to evaluate: these results are optimistic" in said(
        only, margin="5pt"
    )


SHOTS = "b/method=none,shots=4"


def test_a_prompt_that_makes_every_question_longer_is_not_the_cheapest() -> None:
    figures = FIGURES | {UNTUNED: (0.81,)}
    results = made(figures)
    short = one(results, margin="5pt")
    assert short.order[0] == UNTUNED, "nothing is trained, and questions are as long as all others"
    tokens = results.runs["configuration"].map({UNTUNED: 300.0}).fillna(100.0)
    longer = replace(results, runs=results.runs.assign(question_tokens=tokens))
    found = one(longer, margin="5pt")
    assert found.order[-1] == UNTUNED and found.taken == MIDDLE


def test_a_tie_at_the_end_of_the_scale_is_called_that_and_a_metric_that_can_tell_is_named() -> None:
    nothing = {name: (0.01,) * len(values) for name, values in FIGURES.items()}  # 0 on test
    results = made(nothing)
    outcomes = {key: frame.assign(exact_match=0.0) for key, frame in results.outcomes.items()}
    runs = results.runs.assign(**{"test.exact_match": 0.0, "test.log_loss": np.linspace(1, 2, len(results.runs))})
    floor = replace(results, runs=runs, outcomes=outcomes, metrics=("exact_match", "log_loss"))
    text = said(floor, margin="5pt")
    assert "no choice: all 4 candidates score 0.0 % in exact match, so it cannot tell them apart" in text
    assert "log loss can: set evaluate.primary" in text
    assert "take" not in text


def top(figures: dict[str, tuple[float | str, ...]]) -> str:
    results = made(figures)
    return " ".join(brief(results, one(results, margin="5pt"))).replace("\u202f", " ")


def test_three_planted_worlds_have_the_right_answer_and_the_right_reason() -> None:
    """Cheap and equal; cheap and worse by the margin; seeds that scatter more than the margin."""
    rest = {UNTUNED: (0.1,)}
    equal = top({SMALL: (0.80, 0.81, 0.82), LARGE: (0.81, 0.80, 0.82), **rest})
    assert equal.startswith(f"Take {SMALL} (80.0 %, 95 % interval")
    assert "the cheapest (2.00 GB peak training memory and 2.00 MB saved size) of the 2 candidates that are" in equal
    worse = top({SMALL: (0.75, 0.76, 0.77), LARGE: (0.80, 0.81, 0.82), **rest})
    assert worse.startswith(f"Take {LARGE} (80.0 %, 95 % interval")
    assert "the only one of 3 candidates shown to be less than 5.0 points worse" in worse
    assert f"Of the cheaper ones, {SMALL} scored 5.0 points lower" in worse
    assert "at 22 % of the peak training memory" in worse
    open_ = top({SMALL: (0.72, 0.80, 0.88), LARGE: (0.73, 0.81, 0.89), **rest})
    assert open_.startswith(f"{LARGE} (80.0 %, 95 % interval")
    assert "is the safe choice: it has the best mean" in open_
    assert f"{SMALL} scored 1.0 points lower (95 % interval" in open_
    assert f"more seeds would show whether {SMALL} is within 5.0 points of {LARGE}" in open_


def test_a_rival_whose_interval_says_that_it_is_worse_is_not_said_to_be_better() -> None:
    """One of many: the test of all of them is stricter than the interval of one pair."""
    others = {f"a/r={2**n}": (0.77, 0.78, 0.79) for n in range(1, 12)}
    results = made({SMALL: (0.79, 0.80, 0.81), **others, UNTUNED: (0.1,)})
    text = " ".join(brief(results, one(results, margin="0.1pt")))
    assert text.startswith(f"{SMALL} (79.0\u202f%")
    assert "may be better" not in text
    assert f"cannot be ruled out in the test of all 13 candidates: {SMALL} scored 2.0 points higher" in text
