import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from grid_fixture import FLAT, RATES, TUNED, grid
from results_fixture import study

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.factors.decomposition import complete
from lorafile.analysis.registry import analyses
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable

# of matplotlib (van der Walt and Smith, 2015), every tenth of the way
VIRIDIS = (
    "440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725",
)  # fmt: skip
HIGH = {(rank, 3e-2, seed): "diverged" for rank in (16, 64) for seed in (1, 2, 3)}


def effects(results: Results, **settings: Any) -> list[Analysis]:
    return analyses(results, [AnalysisTable.model_validate({"kind": "effects"} | settings)])


def said(found: list[Analysis]) -> str:
    return " ".join(line for analysis in found for line in analysis.sentences).replace("\u202f", " ")


def test_rank_matters_only_once_the_rate_is_tuned_comes_out_by_itself() -> None:
    text = said(effects(grid(TUNED)))
    assert "lora.r matters only once train.learning_rate is tuned: at 1e-5 its effect is not distinguishable" in text
    assert "The two settings interact: the effect of lora.r = " in text
    assert "exact match on validation: +38.8 points" in text  # rates are chosen there


def test_an_effect_that_turns_round_is_told_as_such() -> None:
    results = grid({1e-4: (0.30, 0.40), 1e-3: (0.40, 0.70), 1e-2: (0.72, 0.40)})
    text = said(effects(results))
    told = (
        "The effect of lora.r reverses with train.learning_rate: "
        "64 is better than 1 at 1e-4 and 1e-3, and worse at 0.01"
    )
    assert told in text
    assert "matters only" not in text
    assert "The train.learning_rate with the best mean depends on lora.r: it is 1e-3 for 16 and 64" in text
    assert "reverses with train.learning_rate: 64 is better than 1 at 1e-4" in said(effects(results, metric="log_loss"))


def test_no_interaction_is_never_called_none() -> None:
    text = said(effects(grid(FLAT)))
    assert "No interaction is distinguishable from noise, which does not prove that there is none" in text
    assert "matters only" not in text
    assert "interact:" not in text


def test_what_diverged_comes_first_stays_visible_and_is_in_no_average() -> None:
    (found,) = effects(grid(TUNED, lost=HIGH | {(16, 1e-3, 1): "out-of-memory"}))
    assert found.sentences[0] == (
        "Runs were lost at train.learning_rate = 1e-3: lora.r 16 (1 of 3 out of memory); "
        "at train.learning_rate = 0.03: lora.r 16 (3 of 3 diverged) and 64 (3 of 3 diverged)."
    )
    assert found.sentences[1].startswith(
        "Excluded from the following, but still in the chart: train.learning_rate = 1e-3 and 0.03."
    )
    cells = found.tables[1].frame
    assert len(cells) == 20
    assert set(cells[cells["column"].isin(["1e-3", "0.03"])]["compared"]) == {"no"}
    drawn = str(next(iter(found.charts.values())).to_dict())
    assert drawn.count("× 3 diverged") == 2
    assert "× left out" in drawn


def test_a_missing_cell_leaves_the_line_out_that_costs_least() -> None:
    known = {(i, j) for i in range(3) for j in range(5)} - {(0, 4), (1, 4), (2, 0)}
    assert complete(known, 3, 5) == ((0, 1, 2), (1, 2, 3))
    assert min(map(len, complete(set(), 2, 2))) == 0


def test_with_one_seed_effects_are_described_and_not_judged() -> None:
    (found,) = effects(grid(TUNED, seeds=(1,)))
    assert "With one seed, this describes these runs only." in said([found])
    assert not re.search("interact|95 %", said([found]))
    assert "least" not in str(next(iter(found.charts.values())).to_dict()["vconcat"][1]["layer"])


def test_undeclared_a_study_of_single_factors_has_no_effects() -> None:
    assert effects(study()) == []


def test_a_pair_that_was_not_crossed_is_told_with_those_that_were() -> None:
    text = said(effects(grid(), factor="lora.r", by="quantization"))
    assert text.startswith("lora.r and quantization were not crossed")
    assert "lora.r × train.learning_rate (sweep grid)" in text


def test_the_declared_factor_is_the_one_whose_effect_is_followed() -> None:
    (found,) = effects(grid(TUNED), factor="train.learning_rate", by="lora.r")
    assert list(found.tables[0].frame["by"]) == ["1", "4", "16", "64"]
    # a rate's best value is in the middle, so that the ends would say nothing: those furthest apart on average
    assert found.tables[0].title == "train.learning_rate = 1e-3 against 0.03, at each lora.r"


def test_less_is_better_turns_the_colours_round() -> None:
    (found,) = effects(grid(TUNED), metric="log_loss")
    layers = next(iter(found.charts.values())).to_dict()["vconcat"][0]["layer"]
    assert layers[0]["encoding"]["color"]["scale"]["reverse"]
    assert "brighter is better" in found.captions[found.name]


def test_without_outcomes_of_examples_nothing_is_compared() -> None:
    text = said(effects(replace(grid(), outcomes={})))
    assert "No effects are compared: grid/r=1,learning_rate=1e-05 has no per-example outcomes" in text


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_figures_on_cells_have_a_readable_contrast(mode: Any) -> None:
    """The two inks change over where both still have WCAG's 4.5 to 1 against viridis."""
    from lorafile.analysis.factors.effects_chart import TURNS
    from lorafile.report.theme import config

    channels = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS]).T
    low, high = config(mode)["range"]["heatmap"]["extent"]
    for at in range(101):
        place = 10 * (low + (high - low) * at / 100)
        colour = [float(np.interp(place, range(11), channel)) / 255 for channel in channels]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        light = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        contrast = (light + 0.05) / 0.05 if at / 100 > TURNS else 1.05 / (light + 0.05)
        assert contrast >= 4.5, (at, contrast)


def test_ranks_are_in_order_of_their_size() -> None:
    (found,) = effects(grid(FLAT))
    drawn = next(iter(found.charts.values())).to_dict()["vconcat"][0]["layer"][0]["encoding"]
    assert drawn["y"]["sort"] == ["64", "16", "4", "1"]
    assert len(drawn["x"]["sort"]) == len(RATES)
