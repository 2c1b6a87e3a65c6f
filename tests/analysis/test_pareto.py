from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from recommend_fixture import FIGURES, LARGE, MIDDLE, SMALL, UNTUNED, made
from results_fixture import study
from spec_fixture import parse

from lorafile.analysis.common.base import Analysis, specification
from lorafile.analysis.registry import analyses
from lorafile.errors import SpecError
from lorafile.report.embedded import with_brush
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable, VerdictTable

NEAR = "a/r=8"  # as expensive as the large one, a point below it


def pareto(results: Results, **settings: Any) -> Analysis:
    (found,) = analyses(results, [AnalysisTable.model_validate({"kind": "pareto"} | settings)])
    return found


def places(found: Analysis) -> dict[str, str]:
    assert found.table is not None
    return dict(zip(found.table["configuration"], found.table["place"], strict=True))


def priced(figures: dict[str, Any], **memory: float) -> Results:
    results = made(figures)
    rows = [{"configuration": name, "device": "L4", "train_allocated_bytes": 1e9 * gb} for name, gb in memory.items()]
    return replace(results, profiles=pd.DataFrame(rows))


def test_what_is_worse_beyond_the_noise_is_clearly_behind_and_what_is_within_it_says_so() -> None:
    """Standard error of a difference: 0.01 · √(2/3); 0.19 is far beyond it, 0.01 is not."""
    figures = {LARGE: FIGURES[LARGE], NEAR: FIGURES[MIDDLE], SMALL: FIGURES[SMALL]}
    found = pareto(priced(figures, **{LARGE: 9.0, NEAR: 9.0, SMALL: 9.0}))
    told = {LARGE: "on the frontier", NEAR: f"behind {LARGE}, within the noise", SMALL: f"clearly behind {LARGE}"}
    assert places(found) == told
    assert f"Clearly behind it: {SMALL} (by {LARGE})." in found.sentences


def test_what_costs_more_and_is_no_better_within_the_margin_is_clearly_behind() -> None:
    figures = {MIDDLE: FIGURES[MIDDLE], NEAR: FIGURES[MIDDLE]}
    results = priced(figures, **{MIDDLE: 3.0, NEAR: 9.0})
    assert places(pareto(results))[NEAR] == f"behind {MIDDLE}, within the noise"
    with_margin = replace(results, verdict=VerdictTable(margin="5pt"))
    assert places(pareto(with_margin))[NEAR] == f"clearly behind {MIDDLE}"


def test_with_one_seed_nothing_is_clearly_behind() -> None:
    figures = {name: values[:1] for name, values in FIGURES.items() if name != UNTUNED}
    found = pareto(priced(figures, **{MIDDLE: 3.0, SMALL: 9.0, LARGE: 9.0}))
    assert places(found)[SMALL].startswith("behind ")
    assert "No bars" in " ".join(found.captions.values())


def test_times_that_hardly_differ_put_nobody_clearly_behind() -> None:
    rows = [(LARGE, 1.0, 9.0), (MIDDLE, 1.01, 9.0), (SMALL, 1.5, 9.0)]
    frame = pd.DataFrame(rows, columns=["configuration", "token_seconds", "train_allocated_bytes"]).assign(device="L4")
    results = made(dict.fromkeys((LARGE, MIDDLE, SMALL), FIGURES[LARGE]), profiles=frame)
    found = places(pareto(results, measures=["train_memory", "token_latency"]))
    assert found[MIDDLE] == f"behind {LARGE}, within the noise"
    assert found[SMALL] == f"clearly behind {LARGE}"


def test_each_measure_has_its_direction_and_quality_is_read_upwards() -> None:
    found = pareto(study(), measures=["adapter_size", "exact_match"])
    assert found.title == "Exact match against saved size"
    frame = pareto(study(), measures=["log_loss", "exact_match"]).table
    assert frame is not None
    front = frame[frame["place"] == "on the frontier"]["configuration"].tolist()
    assert frame.loc[frame["log_loss"].idxmin(), "configuration"] in front
    assert frame.loc[frame["exact_match"].idxmax(), "configuration"] in front


def test_over_three_measures_none_of_the_frontier_is_beaten_in_all() -> None:
    found = pareto(study(), measures=["exact_match", "train_memory", "token_latency"])
    frame = found.table
    assert frame is not None
    rows = frame[["configuration", "exact_match", "train_memory", "token_latency"]].to_numpy().tolist()
    beaten = {
        one[0]
        for one in rows
        for two in rows
        if two[1] >= one[1] and two[2] <= one[2] and two[3] <= one[3] and two[1:] != one[1:]
    }
    assert {name for name, place in places(found).items() if place != "on the frontier"} == beaten
    (chart,) = found.charts.values()
    assert len(chart.to_dict()["hconcat"]) == 2


def test_every_point_names_its_configuration_and_can_be_brushed() -> None:
    for measures in (["exact_match", "train_memory"], ["exact_match", "train_memory", "token_latency"]):
        (chart,) = pareto(study(), measures=measures).charts.values()
        spec = with_brush(specification(chart))
        assert spec["usermeta"]["brush"]
        assert all("configuration" in row for rows in spec["datasets"].values() for row in rows)


def test_bars_are_the_interval_of_the_configurations_own_figure() -> None:
    found = pareto(study())
    frame = found.table
    assert frame is not None
    (chart,) = found.charts.values()
    drawn = {
        row["configuration"]: row for rows in chart.to_dict()["datasets"].values() for row in rows if "y_low" in row
    }
    for row in frame.to_dict("records"):
        point = drawn[str(row["configuration"])]
        assert (
            point["y_low"] == row["exact_match.low"] < row["exact_match"] < row["exact_match.high"] == point["y_high"]
        )


def test_a_measure_that_stands_twice_is_located() -> None:
    with pytest.raises(SpecError) as caught:
        parse('[[analysis]]\nkind = "pareto"\nmeasures = ["log_loss", "log_loss"]')
    assert 'analysis[0].measures[1]: "log_loss" is listed twice' in str(caught.value)


def test_figures_on_other_examples_are_off_the_frontier_and_marked_in_the_table() -> None:
    from verdicts_fixture import study as with_outcomes

    from lorafile.analysis.overview.summary import configuration_rows
    from lorafile.analysis.tradeoffs.frontier import measure_of

    names = {f"rank/r={r}": {"lora.r": r} for r in (4, 8, 16)}
    results = with_outcomes(dict.fromkeys(names, 0.7), names)
    shorter = {key: frame[1:] if key[0] == "rank/r=16" else frame for key, frame in results.outcomes.items()}
    partial = replace(results, outcomes=shorter)
    assert set(measure_of(partial, "exact_match").values) == {"rank/r=4", "rank/r=8"}
    assert configuration_rows(partial)["rank/r=16"]["runs"] == "3, on other examples"
    assert configuration_rows(partial)["rank/r=8"]["runs"] == "3"
