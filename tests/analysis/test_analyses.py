import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from analyses_fixture import run, text
from results_fixture import empty, study

from lorafile.analysis.common.format import amount, number, rate, setting, with_spread
from lorafile.analysis.registry import analyses, kinds
from lorafile.results.results import Results
from lorafile.units import listing

Row = dict[str, Any]


def small(figures: dict[str, Sequence[float | str]], settings: dict[str, Row], **changes: Any) -> Results:
    """Return results with these test figures (validation a point lower); a word instead of one is an outcome."""
    configurations, runs = [], []
    for name, values in figures.items():
        row = {"configuration": name, "sweep": name.partition("/")[0], "aliases": [], "method": "lora"}
        configurations.append(row | {"trained": True, "replicates": len(values)} | settings[name])
        for seed, value in enumerate(values, 1):
            run = {"configuration": name, "seed": seed, "outcome": value if isinstance(value, str) else "done"}
            if not isinstance(value, str):
                run |= {"test.exact_match": value, "validation.exact_match": value - 0.01}
            runs.append(run)
    none = pd.DataFrame()
    seeds = tuple(range(1, 1 + max(len(values) for values in figures.values())))
    made = Results(
        "s", "q?", "t", "exact_match", ("exact_match",), seeds, pd.DataFrame(configurations), none, none, none
    )
    return replace(made, **({"runs": pd.DataFrame(runs)} | changes))


RANKS = {"a/r=1": {"lora.r": 1}, "a/r=2": {"lora.r": 2}, "b/method=none": {"method": "none", "lora.r": None}}
FIGURES = {"a/r=1": [0.50, 0.52, 0.54], "a/r=2": [0.60, 0.62, 0.64], "b/method=none": [0.1]}


def test_summary_gives_the_difference_beside_the_spread() -> None:
    said = text(run(small(FIGURES, RANKS), "summary"))
    assert "All 7 runs finished." in said
    assert "a/r=2 has the highest mean exact match on validation: 61.0 % ± 2.0 points over 3 seeds." in said
    assert (
        "a/r=2 is above a/r=1 (next on validation) by 10.0 points (62.0 % against 52.0 %); "
        "the difference exceeds the spread over seeds, 2.0 points (3 seeds)." in said
    )
    assert "a/r=2 is above b/method=none (untuned) by 52.0 points" in said


def test_a_difference_within_the_spread_is_said_to_be_within() -> None:
    said = text(run(small(FIGURES | {"a/r=1": [0.59, 0.62, 0.62]}, RANKS), "summary"))
    assert "by 1.0 points (62.0 % against 61.0 %)" in said
    assert "the difference does not exceed the spread over seeds, 2.0 points" in said


def test_where_less_is_better_the_best_is_the_lowest() -> None:
    results = small(FIGURES, RANKS)
    named = results.runs.rename(columns=lambda name: name.replace("exact_match", "log_loss"))
    said = text(run(replace(results, runs=named, primary="log_loss", metrics=("log_loss",)), "summary"))
    assert "a/r=1 has the lowest mean log loss on validation: 0.510" in said
    assert "a/r=1 is below a/r=2 (next on validation) by 0.100 nats per token" in said


def test_one_seed_has_no_spread_and_says_so() -> None:
    found = run(small({"a/r=1": [0.5], "a/r=2": [0.6]}, RANKS), "summary")
    assert "one seed gives no spread" in text(found)
    assert "There is only one seed" in text(found)
    assert "±" not in text(found)


def test_what_was_chosen_and_measured_on_the_same_examples_says_so() -> None:
    results = small(FIGURES, RANKS)
    blind = results.runs.drop(columns="test.exact_match")
    assert "so this is optimistic" in text(run(replace(results, runs=blind), "summary"))


def test_failures_come_first_and_are_not_averaged_away() -> None:
    found = run(small(FIGURES | {"a/r=1": [0.5, "diverged", "missing"]}, RANKS), "summary")
    first = found[0].sentences[0]
    assert first == "Of 7 runs, 1 diverged (a/r=1 under seed 2) and 1 not run yet (a/r=1 under seed 3); 5 finished."
    row = found[0].table.set_index("configuration").loc["a/r=1"]
    assert row["runs"] == "1 of 3: 1 diverged, 1 not run yet"
    assert row["test.exact_match.mean"] == 0.5


def test_a_figure_of_a_diverged_run_enters_no_mean() -> None:
    results = small(FIGURES, RANKS)
    runs = results.runs.copy()
    runs.loc[0, ["outcome", "test.exact_match"]] = ["diverged", 0.0]
    row = run(replace(results, runs=runs), "summary")[0].table.set_index("configuration").loc["a/r=1"]
    assert row["test.exact_match.mean"] == pytest.approx(0.53)


NEEDS_MORE = {"tune", "own", "effects"}  # a tuned setting, a file, a grid: the made-up study has none


def test_a_description_is_no_verdict() -> None:
    described = ("cost", "curves", "rates", "truncation", "inspect", "merge", "forgetting", "prompts", "data")
    said = text([analysis for analysis in analyses(study(), []) if analysis.kind in described]).lower()
    for word in ("significant", "equal ", "equivalent", "better than", "proves", "no difference"):
        assert word not in said


def test_every_configuration_is_in_a_table_of_its_sweep_and_references_in_all() -> None:
    results = study()
    tables = run(results, "summary")[0].tables
    assert len(tables) == 6
    for table in tables:
        assert {"baselines/method=none", "baselines/method=full"} <= set(table.frame["configuration"])
    shown = {name for table in tables for name in table.frame["configuration"]}
    assert shown == set(results.configurations["configuration"])


def test_an_alias_is_in_the_sweep_that_named_it_second() -> None:
    bits = next(table for table in run(study(), "summary")[0].tables if table.title == "Sweep bits")
    assert "bits/quantization=none (= rank/r=8)" in set(bits.frame["shown"])


def test_a_trend_orders_numbers_and_holds_the_others_fixed() -> None:
    settings = {f"a/{r},{d}": {"lora.r": r, "lora.lora_dropout": d} for r in (8, 16, 2) for d in (0.0, 0.1)}
    (found,) = run(small({name: [0.5, 0.6] for name in settings}, settings), "trend", factor="lora.r")
    assert list(found.table["value"]) == ["2", "2", "8", "8", "16", "16"]
    assert set(found.table["series"]) == {"lora.lora_dropout=0", "lora.lora_dropout=0.1"}


def test_settings_that_change_together_are_named() -> None:
    settings = {f"a/{r}": {"lora.r": r, "train.learning_rate": r * 1e-4} for r in (1, 2, 4)}
    found = run(small({name: [0.5, 0.6] for name in settings}, settings), "trend")
    assert len(found) == 1
    assert "train.learning_rate changes together with lora.r; their effects cannot be separated." in text(found)


def test_an_undeclared_factor_names_those_that_there_are() -> None:
    assert "Factors with two values: lora.r (sweep a)" in text(
        run(small(FIGURES, RANKS), "trend", factor="lora.use_dora")
    )


def test_categories_keep_the_specs_words() -> None:
    (found,) = run(study(), "trend", factor="lora.target_modules")
    assert list(found.table["value"]) == ["attention", "q_proj+v_proj", "mlp", "all-linear"]


def test_methods_are_shown_with_the_best_lora_on_validation() -> None:
    (found,) = run(study(), "trend", factor="method")
    assert set(found.table["value"]) == {"none", "full", "lora"}
    said = "lora is modules/target_modules=all-linear, the LoRA configuration with the best mean on validation."
    assert said in text([found])


def test_a_sweeps_own_lora_is_not_called_the_best() -> None:
    results = study()
    table = results.configurations
    ours = table["configuration"] == "rank/r=8"
    aliases = [[*row, "baselines/method=lora"] if own else row for own, row in zip(ours, table["aliases"], strict=True)]
    (found,) = run(replace(results, configurations=table.assign(aliases=aliases)), "trend", factor="method")
    rows = dict(zip(found.table["value"], found.table["configuration"], strict=True))
    assert rows["lora"] == "rank/r=8"
    assert rows["best lora"] == "modules/target_modules=all-linear"


def test_a_configuration_that_differs_in_the_factor_only_joins_its_trend() -> None:
    settings = {
        "rank/r=8": {"lora.r": 8, "lora.layers_to_transform": None},
        "rank/r=4": {"lora.r": 4, "lora.layers_to_transform": None},
        "layers/0": {"lora.r": 8, "lora.layers_to_transform": [0]},
        "layers/1": {"lora.r": 8, "lora.layers_to_transform": [1]},
    }
    results = small({name: [0.5, 0.6] for name in settings}, settings)
    (found,) = run(results, "trend", factor="lora.layers_to_transform")
    assert list(found.table["value"]) == ["0", "1", "all"]
    assert "all is rank/r=8, which differs from this sweep in lora.layers_to_transform only." in text([found])


def test_memory_is_drawn_from_zero() -> None:
    (found,) = run(study(), "trend", factor="lora.r")
    below = found.charts[found.name].to_dict()["vconcat"][-1]
    assert below["layer"][0]["encoding"]["y"]["scale"] == {"zero": True}


def test_the_frontier_is_what_nothing_cheaper_matches() -> None:
    profiles = pd.DataFrame(
        {"configuration": ["a/r=1", "a/r=2", "a/r=4"], "device": "x", "train_allocated_bytes": [1e9, 2e9, 3e9]}
    )
    settings = RANKS | {"a/r=4": {"lora.r": 4}}
    results = small(FIGURES | {"a/r=4": [0.55, 0.56]}, settings, profiles=profiles)
    (found,) = run(results, "pareto")
    places = dict(zip(found.table["configuration"], found.table["place"], strict=True))
    assert places == {"a/r=1": "on the frontier", "a/r=2": "on the frontier", "a/r=4": "behind a/r=2"}
    assert "Behind the frontier: a/r=4." in text([found])
    assert "Not shown because peak training memory is missing: b/method=none (nothing is trained)." in text([found])


def test_profiles_of_another_device_are_left_out_by_name() -> None:
    results = study()
    other = results.profiles.head(2).assign(device="NVIDIA T4", train_allocated_bytes=1.0)
    found = run(replace(results, profiles=pd.concat([other, results.profiles])), "pareto")
    assert "Profiles from other devices are excluded: NVIDIA T4." in text(found)
    assert found[0].table["train_memory"].min() > 1e9


def test_costs_name_extremes_and_what_merging_changes() -> None:
    said = text(run(study(), "cost"))
    assert "Merging the adapter changes the time per token by −28.2 % (15 configurations measured both ways)." in said
    assert "An adapter takes 852 KB (rank/r=1) to 27.3 MB (rank/r=32); full fine-tuning saves 2.47 GB." in said


def test_what_merging_moves_in_half_precision_stands_next_to_what_another_batch_moves() -> None:
    results = study()
    half = results.merges["dtype"] == "bfloat16"
    measured = {"batch_moved_tokens": 200.0, "batch_mean_logit_difference": 0.002}
    merges = results.merges.assign(**{name: half.map({True: value}) for name, value in measured.items()})
    said = text(run(replace(results, merges=merges), "merge"))
    assert f"a different batch alone changes it by {number(0.002)}. Up to 3 times as much counts as rounding." in said
    assert said.count("a different batch alone") == 1, "nothing was measured in the other types"
    assert "another batch" in {
        c.title.rpartition(", ")[2] for c in run(replace(results, merges=merges), "merge")[0].tables[0].columns
    }


def test_curves_are_thinned_and_show_the_diverged_run() -> None:
    from lorafile.analysis.training.curves import thinned

    results = study()
    assert thinned(results).groupby(["configuration", "seed"]).size().max() <= 60
    (found,) = run(results, "curves")
    assert "rates/learning_rate=0.005 (seed 2024) diverged; its last finite loss is at step 60." in text([found])
    assert "rate 0.005: diverged" in json.dumps(found.charts["curves"].to_dict())


def test_a_best_rate_at_the_edge_is_not_bracketed() -> None:
    settings = {f"a/{r:g}": {"train.learning_rate": r} for r in (1e-4, 1e-3, 1e-2)}
    figures = {"a/0.0001": [0.2, 0.22], "a/0.001": [0.4, 0.42], "a/0.01": [0.6, 0.62]}
    (found,) = run(small(figures, settings), "rates")
    assert "of the rates 1e-4, 1e-3 and 1e-2, 1e-2 has the best mean exact match on validation (60.0 %)" in text(
        [found]
    )
    assert "it is the highest that was tried, so the best rate is not bracketed" in text([found])
    assert list(found.table["behind"]) == pytest.approx([0.4, 0.2, 0.0])


def test_a_single_rate_is_not_claimed_to_suit() -> None:
    said = text(run(study(), "rates"))
    assert "Run at only one rate (2e-6), so it is unknown whether the rate suits them: baselines/method=full." in said
    assert "not bracketed" not in said


def test_the_rate_of_a_study_that_varies_none_comes_from_its_curves() -> None:
    curves = pd.DataFrame({"configuration": ["a/r=1"] * 2 + ["a/r=2"], "learning_rate": [1e-4, 3e-4, 3e-4]})
    said = text(run(small(FIGURES, RANKS, curves=curves), "rates"))
    assert "Run at only one rate (3e-4), so it is unknown whether the rate suits them: a/r=1 and a/r=2." in said


def test_a_larger_rank_below_a_smaller_one_is_a_sign() -> None:
    said = text(run(small(FIGURES | {"a/r=2": [0.30, 0.31, 0.32]}, RANKS), "rates"))
    assert "a/r=2 scores 21.0 points worse than a/r=1, which has a smaller rank; the spread over seeds is 2.0" in said


def test_diverged_runs_are_a_sign_of_too_high_a_rate() -> None:
    said = text(run(small(FIGURES | {"a/r=2": [0.6, 0.6, "diverged"]}, RANKS), "rates"))
    assert "Diverged, a sign that the learning rate is too high: a/r=2 (1 of 3 runs)." in said


def test_by_default_every_kind_that_has_something_to_say_runs() -> None:
    assert {analysis.kind for analysis in analyses(study(), [])} == {*kinds(), "question"} - NEEDS_MORE
    assert [analysis.sentences for analysis in analyses(empty(), [])] == [["No run has been recorded yet."]]


def test_sweeps_whose_names_differ_in_signs_only_both_appear() -> None:
    settings = {f"{sweep}/r={r}": {"lora.r": r} for sweep in ("a b", "a-b") for r in (1, 2)}
    found = run(small({name: [0.5, 0.6] for name in settings}, settings), "trend")
    assert {analysis.title for analysis in found} == {"lora.r, sweep a b", "lora.r, sweep a-b"}
    assert len({analysis.name for analysis in found} | {name for one in found for name in one.charts}) == 2


@pytest.mark.parametrize("lost", ["runs", "profiles", "curves"])
def test_any_table_may_be_empty(lost: str) -> None:
    for analysis in analyses(replace(study(), **{lost: pd.DataFrame()}), []):
        for chart in analysis.charts.values():
            chart.to_dict()


@pytest.mark.parametrize("seeds", [(42,), (42, 1337)])
def test_fewer_seeds_still_give_every_analysis(seeds: tuple[int, ...]) -> None:
    found = analyses(study(seeds), [])
    assert {analysis.kind for analysis in found} == {*kinds(), "question"} - NEEDS_MORE
    for chart in (chart for analysis in found for chart in analysis.charts.values()):
        assert chart.to_dict()["description"]


def test_numbers_read_well() -> None:
    assert [number(value) for value in (0.51234, 12.34, 1234.5, 0, float("nan"))] == [
        "0.512",
        "12.3",
        "1\u2009230",
        "0",
        "–",
    ]
    assert [rate(value) for value in (2e-4, 1e-3, 0.05, 0.5)] == ["2e-4", "1e-3", "5e-2", "0.5"]
    assert [amount("bytes", value) for value in (852e3, 4.4e9, 12.0)] == ["852 KB", "4.40 GB", "12.0 B"]
    assert [amount("seconds", value) for value in (0.0191, 90.0, 300.0)] == ["19.1 ms", "90.0 s", "5.00 min"]
    assert with_spread("number", 0.5123, 0.0127) == "0.512 ± 0.013"
    assert with_spread("share", 0.832, 0.011) == "83.2 ± 1.1\u202f%"


def test_settings_read_as_in_names() -> None:
    lists = (["q_proj", "v_proj"], [0, 1, 2, 3], [3, 7], [])
    assert [setting(value) for value in lists] == ["q_proj+v_proj", "0-3", "3+7", "empty"]
    assert [setting(value) for value in (16.0, 2e-4, True, "nf4", {"load_in_4bit": True})] == [
        "16",
        "2e-4",
        "true",
        "nf4",
        "load_in_4bit=true",
    ]
    assert [listing("ab"), listing("a"), listing("abcd", 2)] == ["a and b", "a", "a, b and 2 more"]


def test_importing_analyses_costs_nothing() -> None:
    import subprocess
    import sys

    heavy = "import lorafile.analysis.registry, lorafile.report.writer, sys; "
    heavy += "sys.exit(bool({'altair', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-P", "-c", heavy], check=False).returncode == 0


def test_every_cost_that_a_spec_may_name_is_known() -> None:
    from typing import get_args

    from lorafile.analysis.common.scores import COSTS
    from lorafile.specs.tables.analysis import Cost

    assert set(get_args(Cost)) == set(COSTS)
