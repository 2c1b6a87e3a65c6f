"""Verdicts: which comparisons a study makes, what each comes to, and what it says beside."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from verdicts_fixture import EXAMPLES, compare, study

from lorafile.analysis.compare.compare import verdict_table
from lorafile.analysis.compare.pairs import pairs
from lorafile.analysis.compare.planned import confound_lines, confounded
from lorafile.analysis.compare.verdict_text import sentence
from lorafile.analysis.compare.verdicts import family, judge
from lorafile.errors import StateError
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import VerdictTable


def ranks(shares: list[float], **more: Any) -> Results:
    """Return a sweep over ranks 8, 16, 32, … of which 8 is the first."""
    names = [f"rank/r={8 * 2**at}" for at in range(len(shares))]
    settings = {name: {"lora.r": 8 * 2**at} for at, name in enumerate(names)}
    return study(dict(zip(names, shares, strict=True)), settings, **more)


def test_a_large_difference_is_better_and_says_how_large_with_seeds_and_examples() -> None:
    results = ranks([0.4, 0.8])
    (verdict,) = family(results).verdicts
    assert verdict.word == "better"
    said = sentence(results, verdict)
    assert said.startswith("rank/r=16 is better than rank/r=8 in exact match on test: +")
    assert "3 seeds × 200 examples" in said


def test_figures_are_those_of_independent_formulas_where_all_examples_weigh_alike() -> None:
    results = ranks([0.4, 0.8])
    (verdict,) = family(results).verdicts
    assert verdict.estimate is not None
    means = results.runs.groupby("configuration")["test.exact_match"].apply(list)
    difference = np.mean(means["rank/r=16"]) - np.mean(means["rank/r=8"])
    assert verdict.estimate.difference == pytest.approx(difference)
    own = [np.var(means[name], ddof=1) for name in ("rank/r=16", "rank/r=8")]
    assert verdict.estimate.runs == pytest.approx(sum(max(one, np.mean(own)) for one in own) / 3)


def test_equality_is_claimed_within_a_margin_only() -> None:
    shares = [0.9, 0.9]
    assert family(ranks(shares, verdict=VerdictTable(margin="10pt"))).verdicts[0].word == "equivalent"
    without = ranks(shares, verdict=VerdictTable())
    (verdict,) = family(without).verdicts
    assert verdict.word == "inconclusive"
    assert "a margin would define which differences are negligible" in sentence(without, verdict)


def test_a_detectable_but_negligible_difference_says_both() -> None:
    results = ranks([0.80, 0.95], verdict=VerdictTable(margin="30pt"))
    (verdict,) = family(results).verdicts
    assert verdict.word == "equivalent"
    assert "a difference is detectable but negligible" in sentence(results, verdict)


def test_what_is_open_says_how_many_seeds_or_examples_would_decide_it() -> None:
    results = ranks([0.805, 0.80], verdict=VerdictTable(margin="2pt"))
    (verdict,) = family(results).verdicts
    assert verdict.word == "inconclusive"
    assert verdict.sample_size is not None
    assert verdict.sample_size.examples is not None
    assert verdict.sample_size.examples > EXAMPLES
    assert "examples would decide it (margin 2.0 points, 80 % power)" in sentence(results, verdict)


def test_one_seed_gives_no_verdict_on_configurations_and_mcnemar_for_the_runs() -> None:
    results = ranks([0.4, 0.8], seeds=(1,))
    (verdict,) = family(results).verdicts
    assert verdict.word == "none"
    said = sentence(results, verdict)
    assert "no verdict on configurations" in said
    first, second = (results.outcomes[name, 1, "test"]["exact_match"] for name in ("rank/r=16", "rank/r=8"))
    won, lost = int((first > second).sum()), int((first < second).sum())
    assert verdict.mcnemar == pytest.approx(stats.binomtest(won, won + lost).pvalue)


def test_two_seeds_are_named_as_few() -> None:
    results = ranks([0.4, 0.8], seeds=(1, 2))
    assert "only 2 seeds: preliminary" in sentence(results, family(results).verdicts[0])


def test_a_missing_and_a_diverged_run_are_named_in_the_verdict() -> None:
    results = ranks([0.4, 0.8])
    runs = results.runs.copy()
    runs.loc[(runs["configuration"] == "rank/r=16") & (runs["seed"] == 3), ["outcome", "test.exact_match"]] = (
        "diverged",
        None,
    )
    partial = replace(results, runs=runs)
    (verdict,) = family(partial).verdicts
    assert verdict.estimate is not None
    assert verdict.estimate.seeds == (2, 3)
    assert sentence(partial, verdict).startswith("1 diverged of 3 runs of rank/r=16: rank/r=16 is better than")
    assert list(verdict_table(partial, [verdict]).frame["lost"]) == ["1 diverged of 3 runs of rank/r=16"]


def test_all_comparisons_on_the_primary_metric_are_one_family() -> None:
    tables = (compare(factor="lora.r"), compare(factor="lora.r", pairs="all"))
    results = ranks([0.4, 0.6, 0.8], declared=tables)
    found = family(results).verdicts
    assert {frozenset((v.pair.one, v.pair.other)) for v in found} == {
        frozenset(pair) for pair in (("rank/r=8", "rank/r=16"), ("rank/r=8", "rank/r=32"), ("rank/r=16", "rank/r=32"))
    }
    alone = judge(results, "exact_match", "test", [found[0].pair])
    assert found[0].decision is not None
    assert alone[0].decision is not None
    assert found[0].decision.p >= alone[0].decision.p
    wide = [high - low for low, high in (found[0].decision.simultaneous, alone[0].decision.simultaneous)]
    assert wide[0] > wide[1]


def test_a_baseline_is_a_name_or_settings() -> None:
    results = ranks([0.4, 0.6, 0.8])
    for baseline in ("rank/r=16", {"lora": {"r": 16}}):
        found = pairs(results, compare(factor="lora.r", baseline=baseline))
        assert [(pair.one, pair.other) for pair in found] == [("rank/r=8", "rank/r=16"), ("rank/r=32", "rank/r=16")]


def test_in_a_grid_each_is_held_against_the_one_that_is_equal_in_all_else() -> None:
    points = {f"g/{r},{d}": {"lora.r": r, "lora.lora_dropout": d} for r in (8, 16) for d in (0.0, 0.1)}
    results = study(dict.fromkeys(points, 0.5), points)
    found = pairs(results, compare(factor="lora.r", baseline={"lora": {"r": 8}}))
    assert [(pair.one, pair.other) for pair in found] == [("g/16,0.0", "g/8,0.0"), ("g/16,0.1", "g/8,0.1")]


def test_what_was_set_beside_the_factor_refuses_and_a_waiver_marks_it() -> None:
    points = {f"z/{r}": {"lora.r": r, "train.num_train_epochs": epochs} for r, epochs in ((8, 1), (16, 3))}
    table = compare(factor="lora.r", baseline={"lora": {"r": 8}})
    results = study({"z/8": 0.4, "z/16": 0.8}, points, declared=(table,))
    (verdict,) = family(results).verdicts
    assert verdict.word == "refused"
    assert "train.num_train_epochs 3 against 1 also differs" in sentence(results, verdict)
    waived = replace(results, declared=(table.model_copy(update={"waive": ["train.num_train_epochs"]}),))
    (verdict,) = family(waived).verdicts
    assert verdict.word == "better"
    assert "waived: train.num_train_epochs 3 against 1 also differs" in sentence(waived, verdict)


@pytest.mark.parametrize("setting", ["train.from", "train.optim", "train.load_best_model_at_end"])
def test_what_no_method_asks_for_refuses_a_comparison_of_methods_and_their_rates_do_not(setting: str) -> None:
    for more, word in (({}, "better"), ({setting: "other"}, "refused")):
        points = {
            "m/lora": {"method": "lora", "train.learning_rate": 2e-4, **dict.fromkeys(more)},
            "m/miss": {"method": "miss", "train.learning_rate": 1e-3, **more},
        }
        table = compare(factor="method", baseline={"method": "lora"})
        (verdict,) = family(study({"m/lora": 0.4, "m/miss": 0.8}, points, declared=(table,))).verdicts
        assert verdict.word == word


def test_evaluations_that_choose_nothing_refuse_no_comparison() -> None:
    points = {f"z/{r}": {"lora.r": r, "train.eval_steps": every} for r, every in ((8, None), (16, 5))}
    table = compare(factor="lora.r", baseline={"lora": {"r": 8}})
    results = study({"z/8": 0.4, "z/16": 0.8}, points, declared=(table,))
    for selected, word in ((None, "better"), ("validation", "refused")):
        runs = results.runs.copy()
        runs["selected_on"] = [selected if name == "z/16" else None for name in runs["configuration"]]
        (verdict,) = family(replace(results, runs=runs)).verdicts
        assert verdict.word == word


def test_a_confound_is_known_before_anything_has_run() -> None:
    points = {f"z/{r}": {"lora.r": r, "train.num_train_epochs": epochs} for r, epochs in ((8, 1), (16, 3), (32, 3))}
    results = study(dict.fromkeys(points, 0.5), points, declared=(compare(factor="lora.r"),))
    before = replace(results, runs=results.runs[:0], outcomes={})
    (line,) = confound_lines(confounded(before))
    assert "2 comparisons along lora.r will be refused because train.num_train_epochs also differs" in line
    refused = [verdict.pair.unordered for verdict in family(results).verdicts if verdict.word == "refused"]
    assert refused == [row.pair.unordered for row in confounded(before)] != []
    waived = replace(before, verdict=VerdictTable(waive=["train.num_train_epochs"]))
    assert confounded(waived) == []
    equal = {name: {**settings, "train.num_train_epochs": 3} for name, settings in points.items()}
    assert confounded(study(dict.fromkeys(equal, 0.5), equal)) == []


def test_other_examples_are_known_before_anything_has_run() -> None:
    points = {f"d/{n}": {"data.split.test": n} for n in (100, 200)}
    results = study(dict.fromkeys(points, 0.5), points, verdict=VerdictTable(waive=["data.split.test"]))
    (line,) = confound_lines(confounded(results))
    assert line == (
        "1 comparison along data.split.test will be refused because they are not evaluated on the same examples: "
        "d/200 against d/100. Use the same data for both."
    )


def test_two_environments_meet_with_a_waiver_only() -> None:
    results = ranks([0.4, 0.8])
    runs = results.runs.assign(environment=[0, 0, 0, 1, 1, 1])
    places = [{"device": device, "torch": "2.9", "transformers": "5.1", "peft": "0.21"} for device in ("cpu", "L4")]
    moved = replace(results, runs=runs, environments=places)
    (verdict,) = family(moved).verdicts
    assert verdict.word == "refused"
    assert "environment (device cpu and L4)" in verdict.why
    waived = replace(moved, verdict=VerdictTable(margin="2pt", waive=["environment"]))
    assert family(waived).verdicts[0].word == "better"


def test_other_examples_cannot_be_paired_whatever_is_waived() -> None:
    points = {f"d/{n}": {"data.split.test": n} for n in (100, 200)}
    results = study({"d/100": 0.4, "d/200": 0.8}, points, verdict=VerdictTable(waive=["data.split.test"]))
    (verdict,) = family(results).verdicts
    assert verdict.word == "refused"
    assert "not evaluated on the same examples" in verdict.why


def test_perplexity_is_compared_as_log_loss() -> None:
    results = ranks([0.4, 0.8], metric="perplexity", verdict=VerdictTable())
    runs = results.runs.copy()
    for column in ("test.perplexity", "validation.perplexity"):
        runs[column] = np.exp(runs[column])
    (verdict,) = family(replace(results, runs=runs)).verdicts
    assert verdict.estimate is not None
    assert verdict.estimate.difference == pytest.approx(0.4, abs=0.02)
    assert verdict.word == "worse"
    assert "in log loss on test: +0." in sentence(results, verdict)


def test_a_figure_that_is_no_mean_of_its_examples_gets_no_verdict() -> None:
    results = ranks([0.4, 0.8])
    runs = results.runs.assign(**{"test.exact_match": results.runs["test.exact_match"] + 0.1})
    (verdict,) = family(replace(results, runs=runs)).verdicts
    assert verdict.word == "none"
    assert "is not a mean over examples" in verdict.why


def test_what_a_first_look_decides_stands_and_the_rest_is_looked_at_with_all_seeds() -> None:
    seeds = (1, 2, 3, 4, 5, 6, 7, 8)
    results = ranks([0.4, 0.8, 0.4], verdict=VerdictTable(), seeds=seeds, looks=((1, 2, 3), (4, 5, 6, 7, 8)))
    first, second = family(results).verdicts
    assert (first.word, first.look, first.alpha) == ("better", 0, pytest.approx(0.04 * 0.8))
    assert first.estimate is not None
    assert first.estimate.seeds == (3, 3)
    assert (second.look, second.alpha) == (1, pytest.approx(0.008 * 0.8))
    assert second.estimate is not None
    assert second.estimate.seeds == (8, 8)


def test_a_sweep_without_the_usual_value_is_held_against_the_configuration_that_has_it() -> None:
    points = {f"rank/r={r}": {"lora.r": r, "lora.layers_to_transform": None} for r in (4, 8, 16)}
    points |= {f"layers/{name}": {"lora.r": 8, "lora.layers_to_transform": [at]} for at, name in enumerate("ab")}
    found = pairs(study(dict.fromkeys(points, 0.5), points), compare())
    assert [(pair.one, pair.other) for pair in found if pair.factor == "lora.layers_to_transform"] == [
        ("layers/a", "rank/r=8"),
        ("layers/b", "rank/r=8"),
    ]


def test_a_sweep_of_other_methods_alone_is_held_against_the_best_lora() -> None:
    points: dict[str, dict[str, Any]] = {f"rank/r={r}": {"lora.r": r, "method": "lora"} for r in (8, 16)}
    points["untuned/method=none"] = {"lora.r": None, "method": "none"}
    results = study({"rank/r=8": 0.4, "rank/r=16": 0.8, "untuned/method=none": 0.2}, points)
    found = pairs(results, compare())
    assert ("untuned/method=none", "rank/r=16", "method") in [(pair.one, pair.other, pair.factor) for pair in found]


def test_a_score_that_cannot_be_read_takes_its_own_comparisons_out_and_no_others() -> None:
    results = ranks([0.4, 0.8, 0.6])

    class Damaged(dict[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            if key[0] == "rank/r=32":
                raise StateError("The object abc is damaged.")
            return super().__getitem__(key)

    verdicts = family(replace(results, outcomes=Damaged(results.outcomes))).verdicts
    assert {verdict.pair.one: verdict.word for verdict in verdicts} == {"rank/r=16": "better", "rank/r=32": "none"}
    assert "rank/r=32 has a score that cannot be read: The object abc is damaged." in verdicts[1].why


def test_what_validation_chose_is_not_judged_by_validation() -> None:
    results = ranks([0.4, 0.8, 0.6])
    method = "baselines/method=full"
    several = study(
        {"rank/r=4": 0.5, "rank/r=8": 0.7, method: 0.9},
        {"rank/r=4": {"lora.r": 4}, "rank/r=8": {"lora.r": 8}, method: {"method": "full"}},
    )
    chosen = next(pair for pair in pairs(several, compare()) if method in pair.names)
    assert chosen.chosen in ("rank/r=4", "rank/r=8"), "the best LoRA configuration on validation"
    runs = several.runs.drop(columns="test.exact_match")
    outcomes = {(name, seed, "validation"): frame for (name, seed, _), frame in several.outcomes.items()}
    verdict = family(replace(several, runs=runs, outcomes=outcomes)).of(*chosen.names)
    assert verdict is not None and verdict.word == "none"
    assert "and there is no test split to evaluate it on" in verdict.why
    assert family(results).verdicts[0].word == "better"


def test_the_interval_that_is_shown_is_the_one_that_decided() -> None:
    """Holm's level: an open comparison never has an interval without zero, whatever one interval alone would say."""
    results = ranks([0.50, 0.56, 0.61, 0.80], verdict=VerdictTable())
    for verdict in family(results).verdicts:
        assert verdict.decision is not None
        low, high = verdict.decision.interval
        assert (low <= 0 <= high) == (verdict.word == "inconclusive"), verdict


def test_no_interval_leaves_what_the_metric_allows() -> None:
    results = ranks([0.01, 0.99], seeds=(1, 2), verdict=VerdictTable())
    (verdict,) = family(results).verdicts
    assert verdict.decision is not None
    for low, high in (verdict.decision.interval, verdict.decision.simultaneous):
        assert -1 <= low <= high <= 1


def test_sides_that_were_packed_differently_are_marked_and_compared() -> None:
    results = ranks([0.4, 0.8])
    packed = results.runs["configuration"].map({"rank/r=8": 2}).astype(float)
    mixed = replace(results, runs=results.runs.assign(packed=packed))
    (verdict,) = family(mixed).verdicts
    assert verdict.word == "better"
    assert "training in a pack alone against packed: the two were run differently" in sentence(mixed, verdict)
    (same,) = family(replace(results, runs=results.runs.assign(packed=2.0))).verdicts
    assert "pack" not in sentence(results, same)


def test_methods_are_compared_with_a_lora_that_starts_from_no_other_run() -> None:
    points = {
        "m/lora": {"method": "lora", "train.from": None},
        "m/continued": {"method": "lora", "train.from": "m/lora"},
        "m/miss": {"method": "miss", "train.from": None},
    }
    results = study({"m/lora": 0.4, "m/continued": 0.9, "m/miss": 0.8}, points, declared=())
    pairs = [verdict.pair for verdict in family(results).verdicts]
    assert {(pair.one, pair.other) for pair in pairs if "m/miss" in (pair.one, pair.other)} == {("m/miss", "m/lora")}
