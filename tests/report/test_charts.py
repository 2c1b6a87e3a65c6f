"""What a chart or a table must not get wrong: axes of shares, equal configurations, whose curves are drawn."""

from dataclasses import replace

import pytest
from results_fixture import study

from lorafile.analysis.common.base import specification
from lorafile.analysis.common.chart_parts import domain_of, quality
from lorafile.analysis.factors.eligible import trends
from lorafile.analysis.overview.chart import overview
from lorafile.analysis.training.curves import _sentences, thinned
from lorafile.analysis.training.rates import groups
from lorafile.results.results import Results


def matched() -> Results:
    """Return the study as if its placements were matched by parameters: the mlp has a rank and an alpha of its own."""
    results = study()
    table = results.configurations.drop(columns="lora.r")
    solved = [3 if name == "modules/target_modules=mlp" else 8 for name in table["configuration"]]
    return replace(results, configurations=table.assign(rank=solved, alpha=[2 * rank for rank in solved]))


def test_a_study_of_nothing_but_zeros_is_drawn_from_zero() -> None:
    results = study()
    columns = ["validation.exact_match", "test.exact_match"]
    nothing = results.runs.assign(**{column: results.runs[column] * 0 for column in columns})
    spec = specification(overview(replace(results, runs=nothing), "exact_match")[0])
    domains = [
        layer["encoding"]["x"]["scale"]["domain"] for layer in spec["layer"] if "scale" in layer["encoding"]["x"]
    ]
    assert domains
    assert all(domain[0] == 0 < domain[1] <= 1 for domain in domains)


@pytest.mark.parametrize(("low", "high"), [(0.01, 0.9), (0.2, 0.995), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)])
def test_the_axis_of_a_share_ends_where_shares_end(low: float, high: float) -> None:
    first, last = domain_of("exact_match", low, high)
    assert 0 <= first <= low <= high <= last <= 1
    assert first < last


def test_the_axis_of_a_loss_may_go_anywhere() -> None:
    assert domain_of("log_loss", 0.0, 10.0)[0] < 0
    assert domain_of("log_loss", 2.0, 10.0)[1] > 10


def test_a_spread_beyond_a_share_ends_with_the_axis() -> None:
    results = study()
    assert quality(results, "exact_match").scale([0, 1]).to_dict()["clamp"] is True
    assert quality(results, "log_loss").scale([0, 1]).to_dict()["clamp"] is False


def test_a_rank_that_was_solved_makes_configurations_unequal() -> None:
    written = {name for group in groups(study()) for name in group.rates if len(group.rates) > 1}
    solved = {name: group for group in groups(matched()) for name in group.rates}
    assert "rank/r=8" in written
    assert solved["modules/target_modules=mlp"] is not solved["rank/r=8"]
    alone = replace(matched(), configurations=matched().configurations.assign(**{"lora.target_modules": "all"}))
    found = {name: group for group in groups(alone) for name in group.rates}
    assert found["modules/target_modules=mlp"] is not found["rank/r=8"]  # nothing but rank and alpha tells them apart


def test_an_alpha_that_was_solved_makes_configurations_unequal() -> None:
    results = matched()
    alpha = [6 if name == "bits/quantization=nf4" else 16 for name in results.configurations["configuration"]]
    table = results.configurations.assign(rank=8, alpha=alpha, quantization="none")
    found = {name: group for group in groups(replace(results, configurations=table)) for name in group.rates}
    assert found["bits/quantization=nf4"] is not found["rank/r=8"]


def test_a_solved_rank_keeps_a_neighbour_out_of_a_sweep() -> None:
    def followed(results: Results) -> set[str]:
        trend = next(one for one in trends(results) if one.sweep == "bits" and one.factor == "quantization")
        return set(trend.added)

    results = matched()
    other = results.configurations.assign(
        quantization=[
            "int4" if name == "modules/target_modules=mlp" else value
            for name, value in zip(
                results.configurations["configuration"], results.configurations["quantization"], strict=True
            )
        ]
    ).assign(**{"lora.target_modules": "all"})
    assert "modules/target_modules=mlp" not in followed(replace(results, configurations=other))
    same = other.assign(rank=8, alpha=16)
    assert "modules/target_modules=mlp" in followed(replace(results, configurations=same))


def test_untrained_rows_are_in_no_sentence_about_training() -> None:
    results = study()
    untrained = results.runs["configuration"] == "baselines/method=none"
    runs = results.runs.assign(outcome=results.runs["outcome"].mask(untrained, "failed"))
    failed = replace(results, runs=runs)
    thin = thinned(failed)
    assert "baselines/method=none" not in set(thin["configuration"])
    assert not any("baselines/method=none" in line for line in _sentences(failed, thin))
