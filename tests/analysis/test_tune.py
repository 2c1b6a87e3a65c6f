"""What a report says of tuned settings, on made-up candidates."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pandas as pd
from analyses_fixture import run, text
from results_fixture import study

from lorafile.analysis.common.scores import same_runs
from lorafile.plan.tuning_status import Edge, TuningStatus
from lorafile.results.results import Results

RATE = "train.learning_rate"
RATES = (1e-4, 1e-3, 1e-2)
FIGURES = {"rank/r=4": (0.5, 0.8, 0.6), "rank/r=8": (0.6, 0.7, None)}  # None: one of its three runs diverged


def tuned(figures: dict[str, tuple[float | None, ...]] = FIGURES, **changes: Any) -> Results:
    """Return the made-up study with the rate of some configurations tuned, best at 1e-3."""
    base = study()
    rows = []
    for name, means in figures.items():
        for rate, mean in zip(RATES, means, strict=False):
            for seed, off in zip(base.seeds, (-0.01, 0.0, 0.01), strict=True):
                wild = mean is None and seed == 42
                row = {"configuration": name, "candidate": f"{name},learning_rate={rate:g}", "values": {RATE: rate}}
                row |= {"seed": seed, "outcome": "diverged" if wild else "done", "chosen": rate == 1e-3, "added": False}
                rows.append(row | {RATE: rate, "validation.exact_match": None if wild else (mean or 0.9) + off})
    standings = [
        TuningStatus(
            name,
            "learning_rate",
            {RATE: RATES[: len(means)]},
            len(means),
            0,
            3 * len(means),
            chosen=f"{name},learning_rate=0.001",
            values={RATE: 1e-3},
            mean=means[1],
            whole=sum(mean is not None for mean in means),
            places=(("train", "learning_rate"),),
        )
        for name, means in figures.items()
    ]
    standings = [replace(one, **changes) for one in standings]
    settings = base.configurations.assign(
        tuned=[[RATE] if name in figures else [] for name in base.configurations["configuration"]]
    )
    return replace(base, configurations=settings, candidates=pd.DataFrame(rows), tuning=tuple(standings))


def test_the_choice_comes_first_then_what_speaks_against_it() -> None:
    (found,) = run(tuned(), "tune")
    assert found.sentences[0] == (
        "The best learning_rate of all 2 is 1e-3: rank/r=4 (80.0\u202f%) and rank/r=8 (70.0\u202f%); "
        "exact match on validation, means over 3 seeds."
    )
    assert "Every chosen value lies inside the range that was tried." in found.sentences
    assert "No result at learning_rate=0.01: rank/r=8 (1 diverged of 3 runs)." in text([found])
    assert "Each had 3 candidates." in found.sentences
    assert found.limits == ()


def test_a_lead_within_the_spread_over_seeds_is_said_to_be_open() -> None:
    (found,) = run(tuned({"rank/r=4": (0.5, 0.8, 0.795), "rank/r=8": (0.6, 0.7, 0.65)}), "tune")
    assert (
        "Other seeds could have led to a different choice for rank/r=4 (learning_rate=0.01 is 0.5 points behind, "
        "and the spread over seeds is 1.0 points)."
    ) in found.sentences


def test_a_tuned_configuration_is_not_held_against_its_own_runs() -> None:
    results = tuned()
    keys = results.runs.set_index(["configuration", "seed"])["key"]
    same = [
        keys["rank/r=16", seed] if name == "rank/r=32" else key
        for name, seed, key in zip(*(results.runs[column] for column in ("configuration", "seed", "key")), strict=True)
    ]
    assert same_runs(replace(results, runs=results.runs.assign(key=same)), "rank/r=16") == {"rank/r=16", "rank/r=32"}


def test_means_and_spreads_are_those_of_the_seeds() -> None:
    (found,) = run(tuned(), "tune")
    assert found.table is not None
    row = found.table.set_index(["configuration", RATE]).loc["rank/r=4", 1e-3]
    assert (round(row["mean"], 9), round(row["spread"], 9), row["n"], row["note"]) == (0.8, 0.01, 3, "chosen")


def test_what_is_not_bracketed_is_a_limit_with_its_proposal() -> None:
    edge = Edge(RATE, True, 1e-2, 0.1, ("train", "learning_rate"))
    (found,) = run(tuned(edges=(edge,)), "tune")
    assert found.limits == (
        "Not bracketed: learning_rate of rank/r=4, rank/r=8 is best at 0.01, the highest that was tried; next would be "
        "0.1 for all 2 configurations that share its candidates: add it to tune, or set extend = true.",
    )


def test_unequally_many_candidates_are_a_limit() -> None:
    (found,) = run(tuned(FIGURES | {"rank/r=8": (0.6, 0.7)}), "tune")
    assert "3 candidates for rank/r=4; 2 candidates for rank/r=8" in found.limits[0]


def test_before_the_choice_the_report_says_what_is_missing() -> None:
    (found,) = run(tuned(chosen="", waiting=4, runs=9), "tune")
    assert "its learning_rate is not chosen yet: 4 of 9 runs of its 3 candidates have not finished" in text([found])


def test_a_tuned_rate_is_neither_one_rate_only_nor_a_confound() -> None:
    from lorafile.analysis.compare.confounders import differing

    results = tuned()
    said = text(run(results, "rates"))
    assert "rank/r=4" not in said
    column = [2e-3 if name == "rank/r=8" else 1e-3 for name in results.configurations["configuration"]]
    apart = replace(results, configurations=results.configurations.assign(**{RATE: column}))
    kinds = {row.setting: row.kind for row in differing(apart, "rank/r=4", "rank/r=8", "lora.r")}
    assert kinds == {f"tuned {RATE}": "consequence", "trainable parameters": "consequence"}


def test_the_chart_marks_what_was_chosen_and_what_was_lost() -> None:
    (found,) = run(tuned(), "tune")
    (chart,) = found.charts.values()
    rows = [row for data in chart.to_dict()["datasets"].values() for row in data]
    chosen = {row["configuration"] for row in rows if row.get("chosen") is True}
    assert chosen == {"rank/r=4,learning_rate=0.001", "rank/r=8,learning_rate=0.001"}
    lost = Counter(row["lost"] for row in rows if row.get("whole") is False)
    assert set(lost) == {"× 1 diverged"}
