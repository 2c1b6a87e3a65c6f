from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from grid_fixture import grid
from results_fixture import empty, study
from scipy import stats

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.noise.floors import floors
from lorafile.analysis.registry import analyses
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.statistics.probabilities import deviation_interval


def noise(results: Results, **settings: Any) -> list[Analysis]:
    return analyses(results, [AnalysisTable.model_validate({"kind": "noise"} | settings)])


def said(found: list[Analysis]) -> str:
    return " ".join(line for analysis in found for line in analysis.sentences).replace("\u202f", " ")


def again(results: Results, *moved: float) -> Results:
    """Return the results with the first runs repeated, each figure moved by so much."""
    runs = results.runs[(results.runs["seed"] == results.seeds[0]) & (results.runs["outcome"] == "done")]
    rows = [
        {"configuration": run["configuration"], "seed": run["seed"], "repeat": 2, "outcome": "done"}
        | {"test.exact_match": run["test.exact_match"] + by, "same_predictions": by == 0}
        for by, run in zip(moved, runs.to_dict("records"), strict=False)
    ]
    return replace(results, repeats=pd.DataFrame(rows))


def test_the_spread_between_seeds_is_the_pooled_one_with_chi_squares_interval() -> None:
    results = study()
    trained = results.runs.dropna(subset=["seed", "test.exact_match"]).groupby("configuration")["test.exact_match"]
    found = floors(results, "exact_match", "test")
    assert {round(variance, 9) for variance, _ in found.variance.noisy} == {round(trained.var().max(), 9)}
    trained = [figures for _, figures in trained if figures.var() < trained.var().max()]  # without the noisy one
    df = sum(len(figures) - 1 for figures in trained)
    known = np.sqrt(sum((len(figures) - 1) * figures.var() for figures in trained) / df)
    assert found.spread == pytest.approx(known)
    low, high = np.sqrt(df * known**2 / stats.chi2.ppf([0.975, 0.025], df))
    assert found.interval == pytest.approx((low, high))
    assert f"Another seed changes the result of one run by {100 * known:.1f} points" in said(noise(results))


def test_without_freedom_a_deviation_has_no_interval() -> None:
    assert all(np.isnan(deviation_interval(0.1, 0)))


def test_the_examples_part_of_the_spread_is_the_seed_by_example_residual() -> None:
    """Where runs differ by nothing but what each makes of each example, all of the spread is the examples'."""
    results = grid(spread=0.0, examples=400, seeds=(1, 2, 3, 4, 5))
    draw = np.random.default_rng(0)
    frames = {
        key: frame.assign(exact_match=(draw.random(400) < 0.5).astype(float)) for key, frame in results.outcomes.items()
    }
    runs = results.runs.copy()
    for split in ("validation", "test"):
        keys = [(*key, split) for key in zip(runs["configuration"], runs["seed"], strict=True)]
        runs[f"{split}.exact_match"] = [frames[key]["exact_match"].mean() for key in keys]
    found = floors(replace(results, outcomes=frames, runs=runs), "exact_match", "test")
    assert found.of_examples == pytest.approx(0.25 / 400, rel=0.1)  # a coin's variance over so many tosses
    assert found.variance.value == pytest.approx(0.25 / 400, rel=0.4)
    assert found.single == pytest.approx(np.sqrt(0.25 / 5 / 400), rel=0.1)


def test_the_same_again_shows_what_the_machine_alone_changes() -> None:
    text = said(noise(again(study(), 0.0, 0.0, 0.0)))
    assert "The machine alone changes nothing: 3 runs repeated gave the same result, 3 of 3 with identical" in text
    (shown,) = noise(again(study(), 0.004, 0.0))
    assert list(shown.tables[1].frame["same"]) == ["no", "yes"]
    found = floors(again(study(), 0.004, 0.0), "exact_match", "test").repeats
    assert found.spread == pytest.approx(np.sqrt(0.004**2 / 2 / 2))  # two pairs, one of them 0.4 points apart
    assert "The machine alone changes a result by 0.2 points" in said(noise(again(study(), 0.004, 0.0)))
    assert "study.repeats = 2 to run the first seed of every trained configuration again" in said(noise(study()))


def test_what_is_inside_the_noise_is_counted_and_drawn_beside_it() -> None:
    (found,) = noise(study())
    floor = floors(study(), "exact_match", "test")
    inside = [one for one in floor.effects if one.estimate and abs(one.estimate.difference) < floor.inside]
    assert f"is within the noise of this study: {len(inside)} of 14 comparisons are." in said([found])
    assert floor.inside < floor.detectable  # to be found in four of five studies, a difference is larger
    bars, points = next(iter(found.charts.values())).to_dict()["vconcat"]
    assert bars["layer"][0]["encoding"]["x"]["scale"]["domain"][0] == 0
    assert "58.3 points →" in str(points | {"data": str(found.charts[found.name].to_dict()["datasets"])})


def test_a_repeat_without_a_figure_is_shown_and_in_no_average() -> None:
    results = again(study(), 0.0, 0.0)
    results = replace(results, repeats=results.repeats.assign(outcome=["done", "diverged"]))
    (found,) = noise(results)
    assert list(found.tables[1].frame["runs"]) == ["done", "diverged"]
    assert "1 run repeated gave the same result" in said([found])
    assert "1 of 2 repeats has no result" in said([found])


def test_a_study_that_compares_nothing_has_a_floor_all_the_same() -> None:
    (found,) = noise(grid())
    assert found.sentences[0].endswith("is within the noise of this study.")
    assert "of one comparison" in set(found.tables[0].frame["from"])


def test_with_one_seed_no_difference_is_called_noise() -> None:
    text = said(noise(study((42,))))
    assert text.startswith("The effect of another seed on a difference is unknown")
    assert "inside the noise" not in text


def test_without_outcomes_there_is_nothing_to_say() -> None:
    assert noise(replace(study(), outcomes={})) == []
    assert noise(empty()) == []


def test_another_metric_has_a_floor_of_its_own_in_its_own_unit() -> None:
    (found,) = noise(study(), metric="log_loss")
    assert "nats per token is within the noise of this study" in said([found])
