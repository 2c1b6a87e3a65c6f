from itertools import permutations
from math import isnan

import numpy as np
import pytest
from scipy import stats

from lorafile.statistics.choosing import choose, pairwise_differences
from lorafile.statistics.crossed import Outcomes, contrast, pool
from lorafile.statistics.probabilities import holm, uppers

EXAMPLES = 40


def of_runs(*figures: float) -> Outcomes:
    """Return runs that treat every example alike: only seeds bring variance."""
    return Outcomes(np.repeat(np.array(figures)[:, None], EXAMPLES, axis=1))


def of_examples(values: np.ndarray) -> Outcomes:
    """Return what no seed changes: only examples bring variance."""
    return Outcomes(values[None, :], exact=True)


ONE, OTHER, THIRD = (0.70, 0.73, 0.71, 0.74), (0.75, 0.72, 0.76, 0.73), (0.50, 0.53, 0.54, 0.51)  # of one spread


def test_two_configurations_of_runs_alone_are_students_test() -> None:
    found = choose({"one": of_runs(*ONE), "other": of_runs(*OTHER)}, {}, 0.05, True, 0.05)
    shifted = np.array(ONE) + 0.05
    assert found.p["one"] == pytest.approx(stats.ttest_ind(shifted, OTHER, alternative="greater").pvalue)
    assert found.adjusted == found.p  # one of the two is the best: there is one hypothesis


def test_where_less_is_better_the_margin_lies_above() -> None:
    found = choose({"one": of_runs(*ONE), "other": of_runs(*OTHER)}, {}, 0.05, False, 0.05)
    lowered = np.array(OTHER) - 0.05
    assert found.p["other"] == pytest.approx(stats.ttest_ind(lowered, ONE, alternative="less").pvalue)


def test_two_configurations_of_examples_alone_are_the_paired_test() -> None:
    one, other = np.random.default_rng(1).normal(0.5, 0.2, (2, EXAMPLES))
    found = choose({"one": of_examples(one), "other": of_examples(other)}, {}, 0.1, True, 0.05)
    assert found.p["one"] == pytest.approx(stats.ttest_rel(one + 0.1, other, alternative="greater").pvalue)


def test_the_largest_probability_over_rivals_counts() -> None:
    runs = {"one": ONE, "other": OTHER, "third": THIRD}
    found = choose({name: of_runs(*figures) for name, figures in runs.items()}, {}, 0.05, True, 0.05)
    error = np.sqrt(np.mean([np.var(figures, ddof=1) for figures in runs.values()]) * 2 / 4)
    p = {name: stats.t.sf((np.mean(runs[name]) - np.mean(OTHER) + 0.05) / error, 9) for name in ("one", "third")}
    assert found.p["one"] == pytest.approx(p["one"])
    assert found.rival["one"] == "other"
    assert found.p["third"] == pytest.approx(p["third"])


def test_the_cheapest_of_the_claimed_is_chosen() -> None:
    runs = {"best": of_runs(0.80, 0.81, 0.80, 0.81), "near": of_runs(0.79, 0.80, 0.79, 0.80), "far": of_runs(*THIRD)}
    found = choose(runs, {"best": 3.0, "near": 2.0, "far": 1.0}, 0.03, True, 0.05)
    assert (found.chosen, found.claimed) == ("near", ("near", "best"))
    assert "far" not in found.may_be_best


def test_of_equal_costs_the_better_mean_is_chosen() -> None:
    runs = {"near": of_runs(0.79, 0.80, 0.79, 0.80), "best": of_runs(0.80, 0.81, 0.80, 0.81)}
    assert choose(runs, {"near": 1.0, "best": 1.0}, 0.03, True, 0.05).chosen == "best"
    assert choose(runs, {"near": 1.0, "best": 1.0}, 0.03, False, 0.05).chosen == "near"


def test_without_a_margin_nothing_is_claimed_and_what_is_clearly_behind_cannot_be_best() -> None:
    runs = {"one": of_runs(*ONE), "other": of_runs(*OTHER), "third": of_runs(*THIRD)}
    found = choose(runs, {"one": 1.0, "other": 2.0, "third": 0.0}, None, True, 0.05)
    assert found.chosen is None and found.claimed == () and all(isnan(p) for p in found.p.values())
    assert found.may_be_best == ("one", "other") and found.ahead == {"third": "other"}


def test_one_seed_claims_nothing_and_leaves_everybody() -> None:
    found = choose({"one": of_runs(0.9), "other": of_runs(0.1)}, {}, 0.05, True, 0.05)
    assert found.claimed == () and found.may_be_best == ("one", "other")


def test_a_candidate_with_one_run_is_never_claimed_but_others_are_held_against_it() -> None:
    runs = {"single": of_runs(0.78), "near": of_runs(0.79, 0.80, 0.79, 0.80), "best": of_runs(0.80, 0.81, 0.80, 0.81)}
    found = choose(runs, {}, 0.03, True, 0.05)
    assert isnan(found.p["single"]) and "best" in found.claimed
    single = choose(runs | {"single": of_runs(0.9)}, {}, 0.03, True, 0.05)
    assert single.claimed == ()


def test_a_single_candidate_is_the_best_there_is() -> None:
    found = choose({"one": of_runs(*ONE)}, {}, 0.01, True, 0.05)
    assert found.chosen == "one" and found.may_be_best == ("one",)


def test_shaffers_adjustment_counts_one_hypothesis_less_than_holms() -> None:
    assert holm([0.01, 0.04, 0.02], one_is_false=True) == pytest.approx([0.02, 0.04, 0.04])
    assert holm([0.03], one_is_false=True) == [0.03]


def test_among_equals_a_wrong_claim_is_as_rare_as_promised() -> None:
    """Three candidates worse than the best by exactly the margin, 3 seeds: any of them is claimed in at most 5 %."""
    draw, margin, wrong, times = np.random.default_rng(3), 0.05, 0, 1000
    for _ in range(times):
        hard = draw.normal(0, 0.3, EXAMPLES)
        made = {
            name: Outcomes(truth + hard + draw.normal(0, 0.04, (3, 1)) + draw.normal(0, 0.3, (3, EXAMPLES)))
            for name, truth in (("best", margin), ("a", 0.0), ("b", 0.0), ("c", 0.0))
        }
        wrong += any(name != "best" for name in choose(made, {}, margin, True, 0.05).claimed)
    assert wrong / times <= 0.05 + 3 * (0.05 * 0.95 / times) ** 0.5


def test_many_probabilities_at_once_are_those_of_each() -> None:
    gaps, errors = np.array([0.1, -0.2, 0.0, 0.3, 0.0, 0.1]), np.array([0.05, 0.1, 0.0, 0.0, np.nan, 0.2])
    dfs = np.array([4.0, np.inf, 3.0, 3.0, 3.0, 7.5])
    expected = [stats.t.sf(2, 4), stats.norm.sf(-2), 0.5, 0.0, np.nan, stats.t.sf(0.5, 7.5)]
    assert uppers(gaps, errors, dfs) == pytest.approx(expected, nan_ok=True)


def test_what_is_within_the_margin_of_all_right_is_good_enough_whatever_its_rivals_are() -> None:
    """A rival of which little is known holds nothing up: no answers are more right than all of them."""
    draw = np.random.default_rng(3)
    near = Outcomes((draw.random((3, 400)) < 0.99).astype(float))
    wild = Outcomes((draw.random((3, 400)) < np.array([[0.99], [0.5], [0.9]])).astype(float))
    costs = {"wild": 1.0, "near": 2.0}
    assert choose({"near": near, "wild": wild}, costs, 0.05, True, 0.05).chosen == "near"
    open_ended = {name: Outcomes(one.values + 1) for name, one in (("near", near), ("wild", wild))}
    assert choose(open_ended, costs, 0.05, True, 0.05).chosen is None


@pytest.mark.parametrize("noisier", [1.0, 100.0])
@pytest.mark.parametrize("binary", [False, True])
def test_every_two_at_once_are_what_each_two_are_alone(noisier: float, binary: bool) -> None:
    noise = np.random.default_rng(5)
    drawn = {f"{runs} runs": noise.normal(0, 1, (runs, 30)) + noise.normal(0, 1, 30) for runs in (1, 2, 3, 5)}
    drawn["5 runs"] += noisier * noise.normal(0, 0.2, (5, 1))
    drawn |= {"again": drawn["3 runs"], "no seed": noise.normal(0, 1, (1, 30)), "nor here": np.ones((1, 30))}
    sides = {
        name: Outcomes((values > 0).astype(float) if binary else values, exact=name in ("no seed", "nor here"))
        for name, values in drawn.items()
    }
    pooled = pool(sides.values())
    found = pairwise_differences(sides, pooled)
    for one, other in permutations(sides, 2):
        alone, at = contrast(sides[one], sides[other], pooled), (found.places[one], found.places[other])
        told = (found.difference[at], found.error[at], found.df[at])
        assert told == pytest.approx((alone.difference, alone.error, alone.df), rel=1e-12), (one, other)
