from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from grid_fixture import RANKS, grid
from results_fixture import study
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.registry import analyses
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable, VerdictTable
from lorafile.statistics.crossed import Outcomes, pool
from lorafile.statistics.factorial import saturated, steps

ONE = 1e-3


def trend(results: Results, **settings: Any) -> list[Analysis]:
    return analyses(results, [AnalysisTable.model_validate({"kind": "trend"} | settings)])


def said(found: list[Analysis]) -> str:
    return " ".join(line for analysis in found for line in analysis.sentences).replace("\u202f", " ")


def ranks(*shares: float, **changes: Any) -> Results:
    """Return a study of one rate whose ranks 1, 4, 16, 64 have these shares of right answers."""
    made = grid({ONE: (0.5, 0.5)}, **({"spread": 0.0, "examples": 400} | changes))
    by_rank = dict(zip(RANKS, shares, strict=True))
    runs, outcomes = made.runs.copy(), {}
    moved = {1: 0.0, 2: 0.01, 3: -0.01}  # what each seed adds: a standard deviation of a point
    for at, run in enumerate(made.runs.to_dict("records")):
        rank = next(rank for rank in RANKS if f"/r={rank}," in run["configuration"])
        right = np.arange(400) < round(400 * (by_rank[rank] + moved[run["seed"]]))
        for split in ("validation", "test"):
            key = (run["configuration"], run["seed"], split)
            outcomes[key] = made.outcomes[key].assign(exact_match=right.astype(float))
            runs.loc[at, f"{split}.exact_match"] = right.mean()
    return replace(made, runs=runs, outcomes=outcomes)


def test_without_seeds_steps_are_paired_t_tests_adjusted_by_holm() -> None:
    draw = np.random.default_rng(1)
    members = [Outcomes(draw.normal(0.1 * at, 1, (1, 80)), exact=True) for at in range(4)]
    ends = [(0, 1), (1, 2), (2, 3), (0, 3)]
    known = [stats.ttest_rel(members[high].values[0], members[low].values[0]) for low, high in ends]
    found = steps(members, pool(members), 0.05)
    assert [(step.low, step.high) for step in found] == ends
    assert [step.p for step in found] == pytest.approx(multipletests([one.pvalue for one in known], method="holm")[1])
    for step, one in zip(found, known, strict=True):
        low, high = one.confidence_interval(1 - 0.05 / 4)
        assert step.interval == pytest.approx((low, high))


def test_saturation_is_the_largest_of_the_equivalence_tests_from_the_top_down() -> None:
    draw = np.random.default_rng(2)
    hard = draw.normal(0, 1, 200)
    levels = (0.0, 0.5, 0.52, 0.51)
    members = [Outcomes((level + hard + draw.normal(0, 0.3, 200))[None], exact=True) for level in levels]
    place, p = saturated(members, pool(members), 0.15, 0.05)
    assert place == 1
    tests = [(1, 2), (1, 3), (2, 3)]
    known = [ttost_paired(members[high].values[0], members[low].values[0], -0.15, 0.15)[0] for low, high in tests]
    assert p == pytest.approx(max(known))
    assert saturated(members, pool(members), 0.001, 0.05)[0] == 3


def test_a_rise_that_levels_off_says_from_where_and_never_calls_it_equal() -> None:
    text = said(trend(ranks(0.40, 0.60, 0.80, 0.805), factor="lora.r"))
    assert "Exact match on test improves from lora.r = 1 to 64, by 40.5 points" in text
    assert "no step is distinguishably worse" in text
    assert (
        "Beyond lora.r = 16, no further gain is distinguishable from zero, which does not prove that there is none"
        in text
    )
    assert "Doubling lora.r is worth +10.0 points" in text  # twenty points in two doublings
    assert "equivalent" not in text


def test_with_a_margin_levelling_off_is_shown_or_said_not_to_be() -> None:
    wide, narrow = VerdictTable(margin="5pt"), VerdictTable(margin="0.5pt")
    results = ranks(0.40, 0.60, 0.80, 0.805)
    text = said(trend(replace(results, verdict=wide), factor="lora.r"))
    assert "From lora.r = 16 on, every larger value is equivalent to it within 5.0 points." in text
    text = said(trend(replace(results, verdict=narrow), factor="lora.r"))
    assert "The results do not show that it levels off within 0.5 points before 64." in text


def test_a_turn_is_named_where_it_is() -> None:
    text = said(trend(ranks(0.40, 0.60, 0.80, 0.70), factor="lora.r"))
    assert "Exact match on test is not monotonic in lora.r: 64 is worse than 16 by 10.0 points" in text


def test_a_rise_that_goes_on_is_not_called_levelling_off() -> None:
    text = said(trend(ranks(0.20, 0.40, 0.60, 0.80), factor="lora.r"))
    assert "The last step, to 64, is still an improvement: there is no sign of levelling off." in text


def test_no_trend_is_not_called_flat() -> None:
    text = said(trend(ranks(0.60, 0.60, 0.605, 0.60), factor="lora.r"))
    assert "neither rises nor falls from lora.r = 1 to 64 by more than the noise" in text
    assert "is not distinguishable from zero" in text


def test_a_value_that_diverged_is_in_no_step() -> None:
    (found,) = trend(grid({ONE: (0.2, 0.8)}, lost={(16, ONE, 1): "diverged"}), factor="lora.r")
    assert "Excluded from the steps because runs diverged or ran out of memory: lora.r = 16." in said([found])
    rows = found.tables[0].frame.set_index("value")
    assert pd.isna(rows.loc["16", "gain"])
    assert rows.loc["64", "per_doubling"] == pytest.approx((rows.loc["64", "mean"] - rows.loc["4", "mean"]) / 4)


def test_trainable_parameters_order_any_sweep() -> None:
    rank, modules = trend(study(), factor="trainable_parameters")
    assert list(rank.tables[0].frame["configuration"]) == [f"rank/r={r}" for r in (1, 2, 4, 8, 16, 32)]
    assert "lora.target_modules changes together with trainable_parameters; their effects" in said([modules])
    assert modules.name == "trend-modules-trainable-parameters"


def test_configurations_of_one_size_are_series_of_their_own() -> None:
    (found,) = trend(grid(), factor="trainable_parameters")
    assert len(set(found.tables[0].frame["series"])) == 5
    assert "At train.learning_rate=1e-3, exact match on test improves" in said([found])


def test_intervals_are_drawn() -> None:
    (found,) = trend(study(), factor="lora.r")
    quality, gains, _ = found.charts[found.name].to_dict()["vconcat"]
    for panel in (quality, gains):
        assert "most" in {layer["encoding"].get("y2", {}).get("field") for layer in panel["layer"]}
    assert "differences are tested in pairs" in found.captions[found.name]


def test_one_seed_keeps_to_describing() -> None:
    text = said(trend(study((42,)), factor="lora.r"))
    assert "one seed gives no spread to compare this with" in text
    assert "oubling" not in text
