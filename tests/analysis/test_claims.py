import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from results_fixture import study
from scipy import stats

from lorafile.analysis.claims.claims import Check, check, record
from lorafile.analysis.compare.outcomes import figure_interval
from lorafile.analysis.registry import analyses
from lorafile.errors import LoraError
from lorafile.report.writer import figures
from lorafile.results.claims_file import Recorded, claims_text, read_claims
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable, ClaimTable, VerdictTable

COMPARE = AnalysisTable(kind="compare", name="ranks", factor="lora.r", baseline="rank/r=8", margin="3pt")


def claim(**settings: Any) -> ClaimTable:
    return ClaimTable.model_validate({"text": "It is so", "one": "rank/r=8", **settings})


def checked(results: Results, **settings: Any) -> Check:
    (found,) = check(replace(results, claims=(claim(**settings),)))
    return found


@pytest.fixture(scope="module")
def results() -> Results:
    return replace(study(), declared=(COMPARE,), verdict=VerdictTable(margin="3pt"))


def test_a_difference_that_is_there_supports_a_claim_and_refutes_its_opposite(results: Results) -> None:
    assert checked(results, one="rank/r=8", other="rank/r=1", **{"is": "better"}).verdict == "supported"
    assert checked(results, one="rank/r=1", other="rank/r=8", **{"is": "better"}).verdict == "refuted"
    assert checked(results, one="rank/r=1", other="rank/r=8", **{"is": "worse"}).verdict == "supported"


def test_at_most_so_much_below_is_non_inferiority_at_that_margin(results: Results) -> None:
    below = {"one": "rank/r=1", "other": "rank/r=8"}  # eleven points below by construction
    assert checked(results, at_most_below="25pt", **below).verdict == "supported"
    assert checked(results, at_most_below="3pt", **below).verdict == "refuted"
    near = checked(results, at_most_below="11pt", **below)
    assert near.verdict == "undecided"
    assert "judged with a margin of 11.0 points" in near.reasons


def test_the_direction_of_the_metric_counts(results: Results) -> None:
    loss = {"metric": "log_loss", "one": "rank/r=8", "other": "rank/r=1"}
    assert checked(results, **loss, **{"is": "better"}).verdict == "supported"
    assert checked(results, **loss, at_most_below=0.01).verdict == "supported"
    turned = checked(results, metric="log_loss", one="rank/r=1", other="rank/r=8", at_most_below=0.01)
    assert turned.verdict == "refuted"


def test_a_pair_outside_the_family_is_judged_alone_and_says_so(results: Results) -> None:
    inside = checked(results, other="rank/r=1", **{"is": "better"})
    outside = checked(results, other="rates/learning_rate=2e-05", **{"is": "better"})
    assert "not part of the study's family" not in inside.reasons
    assert outside.verdict == "supported"
    assert "not part of the study's family" in outside.reasons


def test_a_claim_on_an_analysis_takes_its_verdict_and_knows_what_it_does_not_compare(results: Results) -> None:
    assert checked(results, analysis="ranks", other="rank/r=1", **{"is": "better"}).verdict == "supported"
    missing = checked(results, analysis="ranks", one="rank/r=4", other="rank/r=1", **{"is": "better"})
    assert missing.verdict == "undecided"
    assert "does not compare rank/r=4 with rank/r=1" in missing.reasons


def test_a_bound_holds_only_where_the_near_end_of_the_interval_keeps_it(results: Results) -> None:
    ends = figure_interval(results, "rank/r=8", "exact_match", "test")
    assert isinstance(ends, tuple)
    low, high = ends
    assert checked(results, at_least=low - 0.001).verdict == "supported"
    assert checked(results, at_least=(low + high) / 2).verdict == "undecided"
    assert checked(results, at_least=high + 0.001).verdict == "refuted"
    assert checked(results, at_most=low - 0.001).verdict == "refuted"
    assert checked(results, at_most=high + 0.001).verdict == "supported"


def test_answers_that_are_all_right_leave_room_for_examples_that_are_not(results: Results) -> None:
    frame = pd.DataFrame({"row": range(50), "exact_match": np.ones(50)})
    names = ["rank/r=8"]
    configurations = results.configurations[results.configurations["configuration"].isin(names)]
    runs = results.runs[results.runs["configuration"].isin(names)].assign(**{"test.exact_match": 1.0})
    outcomes = {("rank/r=8", seed, "test"): frame for seed in results.seeds}
    perfect = replace(results, configurations=configurations, runs=runs, outcomes=outcomes, declared=())
    ends = figure_interval(perfect, "rank/r=8", "exact_match", "test")
    expected = stats.binomtest(50, 50).proportion_ci(0.95, method="exact")
    assert isinstance(ends, tuple)
    assert ends[0] <= expected.low + 1e-12
    assert ends[1] == 1.0


def test_an_untuned_row_has_the_interval_of_its_examples(results: Results) -> None:
    values = results.outcomes["baselines/method=none", None, "test"]["exact_match"].to_numpy()
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    exact = stats.binomtest(int(values.sum()), len(values)).proportion_ci(0.95, method="exact")
    ends = figure_interval(results, "baselines/method=none", "exact_match", "test")
    assert ends == pytest.approx((min(expected.low, exact.low), max(expected.high, exact.high)))


def test_limits_of_cost_are_held_against_what_was_measured(results: Results) -> None:
    share = 8 * 16 * 13312 / 1_235_814_400  # rank 8 on the four projections of sixteen layers
    assert checked(results, trainable_share=share * 1.01).verdict == "supported"
    assert checked(results, trainable_share=share * 0.99).verdict == "refuted"
    assert checked(results, train_memory="8GB").verdict == "supported"
    assert checked(results, train_memory="2GiB").verdict == "refuted"
    assert checked(results, one="baselines/method=none", train_memory="8GB").verdict == "undecided"
    seconds = results.runs.loc[results.runs["configuration"] == "rank/r=8", "seconds"]
    high = stats.t.interval(0.95, 2, seconds.mean(), stats.sem(seconds))[1]
    assert checked(results, train_time=f"{seconds.mean() + 0.01:.4f}s").verdict == "undecided"
    assert checked(results, train_time=f"{high + 0.01:.4f}s").verdict == "supported"


def test_all_of_a_claim_has_to_hold(results: Results) -> None:
    both = {"other": "rank/r=1", "at_most_below": "3pt"}
    assert checked(results, **both, trainable_share=0.003).verdict == "supported"
    assert checked(results, **both, trainable_share=0.0001).verdict == "refuted"


def recorded(results: Results, **settings: Any) -> Results:
    """Return the results with a record of a claim as it is now."""
    stated = replace(results, claims=(claim(**settings),))
    return replace(stated, recorded=record(check(stated)))


def test_a_claim_is_stale_when_a_run_that_it_rests_on_has_other_figures(results: Results) -> None:
    before = recorded(results, other="rank/r=1", **{"is": "better"})
    assert [one.status for one in check(before)] == ["supported"]
    runs = results.runs.copy()
    row = (runs["configuration"] == "rank/r=1") & (runs["seed"] == 42)
    runs.loc[row, "test.exact_match"] += 0.002
    (again,) = check(replace(before, runs=runs, outcomes={}))
    assert again.verdict == "undecided"  # no outcomes: nothing to judge, which goes before being stale
    key = runs.assign(key=runs["key"].where(~row, "f" * 16), **{"test.exact_match": results.runs["test.exact_match"]})
    (again,) = check(replace(before, runs=key))
    assert (again.verdict, again.status) == ("supported", "stale")
    assert "rank/r=1/seed=42 was run again with different results" in again.line
    assert "`lora report` updates it" in again.line


def test_a_run_that_is_gone_makes_a_claim_stale_and_another_claims_runs_do_not(results: Results) -> None:
    before = recorded(results, other="baselines/method=none", **{"is": "better"})
    gone = (results.runs["configuration"] == "rank/r=8") & (results.runs["seed"] == 1337)
    (stale,) = check(replace(before, runs=results.runs[~gone]))
    assert (stale.verdict, stale.status) == ("supported", "stale")
    assert "rank/r=8/seed=1337 was lost" in stale.line
    other = results.runs["configuration"] == "bits/quantization=nf4"
    (fresh,) = check(replace(before, runs=results.runs.assign(key=results.runs["key"].where(~other, "0"))))
    assert fresh.status == "supported"


def test_other_terms_are_another_claim_and_not_stale(results: Results) -> None:
    before = recorded(results, at_least=0.5)
    other = replace(before, claims=(claim(at_least=0.6),), recorded={"It is so": Recorded("supported", {}, {"x": "y"})})
    (found,) = check(other)
    assert (found.status, found.recorded) == ("supported", False)


def test_the_record_is_read_as_it_was_written(results: Results, tmp_path: Any) -> None:
    before = recorded(results, other="rank/r=1", at_most_below="3pt", trainable_share=0.003)
    file = tmp_path / "study.claims"
    assert read_claims(file) == {}
    file.write_text(claims_text(before.recorded), encoding="utf-8")
    assert read_claims(file) == before.recorded
    (name, *_) = before.recorded["It is so"].rests_on
    assert name == "rank/r=1/seed=42"
    file.write_text('{"version": 1}', encoding="utf-8")
    with pytest.raises(LoraError, match="is damaged"):
        read_claims(file)


def test_the_report_says_of_every_claim_what_became_of_it(results: Results) -> None:
    claims = (
        claim(text="Eight beats one", other="rank/r=1", **{"is": "better"}),
        claim(text="It is perfect", at_least=0.99),
        claim(text="It was measured", one="baselines/method=none", train_memory="1GB"),
    )
    stated = replace(results, claims=claims)
    section = analyses(stated, [COMPARE])[-1]
    assert section.sentences[0].startswith("Of 3 claims, 1 refuted")
    assert [line.split(":")[0] for line in section.sentences[1:]] == ["Refuted", "Undecided", "Supported"]
    found = json.loads(json.dumps(figures(stated, []), allow_nan=False))["claims"]
    assert [one["verdict"] for one in found] == ["supported", "refuted", "undecided"]
    assert found[0]["rests_on"].keys() == {f"rank/r={r}/seed={s}" for r in (1, 8) for s in (42, 1337, 2024)}


def test_a_lost_run_leaves_a_claim_undecided_unless_it_is_waived(results: Results) -> None:
    runs = results.runs.copy()
    row = (runs["configuration"] == "rank/r=1") & (runs["seed"] == 42)
    runs.loc[row, "outcome"] = "diverged"
    columns = [name for name in runs.columns if name.startswith(("test.", "validation."))]
    runs.loc[row, columns] = None
    partial = replace(results, runs=runs)
    about = {"one": "rank/r=1", "other": "baselines/method=none", "is": "better"}
    (found,) = check(replace(partial, claims=(claim(**about),)))
    assert found.verdict == "undecided"
    assert "of the 3 runs of rank/r=1, 1 diverged, and the rest are not a fair sample" in found.line
    assert 'waive = ["diverged"]' in found.line
    (waived,) = check(replace(partial, claims=(claim(**about, waive=["diverged"]),)))
    assert waived.verdict == "supported"
    (other,) = check(replace(partial, claims=(claim(**about, waive=["out-of-memory"]),)))
    assert other.verdict == "undecided"


def test_without_a_test_split_a_claim_is_at_most_undecided(results: Results) -> None:
    runs = results.runs.drop(columns=[name for name in results.runs.columns if name.startswith("test.")])
    only = replace(results, runs=runs)
    (found,) = check(replace(only, claims=(claim(one="rank/r=8", at_least=0.1),)))
    assert found.verdict == "undecided"
