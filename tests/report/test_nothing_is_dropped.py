"""A study with everything that goes wrong: the report names each, and leaves nothing out in silence."""

from dataclasses import replace

import pytest
from verdicts_fixture import compare, study

from lorafile.analysis.registry import analyses
from lorafile.report.content import limits
from lorafile.report.html import page
from lorafile.report.markdown import document
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable

PLACES = [{"device": device, "torch": "2.9", "transformers": "5.1", "peft": "0.21"} for device in ("cpu", "NVIDIA L4")]


@pytest.fixture(scope="module")
def planted() -> Results:
    """A sweep over ranks; 16 was trained for longer, 32 lacks a seed, 64 diverged once, 128 ran on another machine."""
    points = {f"rank/r={r}": {"lora.r": r, "train.num_train_epochs": 1} for r in (8, 16, 32, 64, 128)}
    points["rank/r=16"]["train.num_train_epochs"] = 3
    made = study(dict.fromkeys(points, 0.6), points)
    runs = made.runs.assign(environment=[0] * 12 + [1] * 3, message="")
    lost = {"rank/r=32": "missing", "rank/r=64": "diverged"}
    for name, outcome in lost.items():
        here = (runs["configuration"] == name) & (runs["seed"] == 3)
        runs.loc[here, ["outcome", "test.exact_match", "validation.exact_match"]] = (outcome, None, None)
    tables = (compare(factor="lora.r"), AnalysisTable(kind="confounds"), AnalysisTable(kind="summary"))
    return replace(made, runs=runs, environments=PLACES, declared=tables)


@pytest.mark.parametrize(
    "said",
    [
        "rank/r=16 and rank/r=8 are not compared: train.num_train_epochs 3 against 1 also differs",
        "1 not run yet of 3 runs of rank/r=32",
        "1 diverged of 3 runs of rank/r=64",
        "rank/r=128 and rank/r=8 are not compared: environment (device cpu and NVIDIA L4) also differs",
        "Not compared: rank/r=16 and rank/r=8, along lora.r: train.num_train_epochs 3 against 1.",
        "1 diverged (rank/r=64 under seed 3)",
        "1 not run yet (rank/r=32 under seed 3)",
    ],
)
def test_each_is_named(planted: Results, said: str) -> None:
    found = analyses(planted, list(planted.declared))
    assert said in "\n".join(line for analysis in found for line in analysis.sentences)


def test_every_configuration_and_every_run_is_on_the_page_and_in_the_document(planted: Results) -> None:
    found = analyses(planted, list(planted.declared))
    for text in (page(planted, found), document(planted, found).replace("\\", "")):
        for name in planted.configurations["configuration"]:
            assert text.count(name) >= 3  # a verdict, a row, a run
        assert text.count("diverged") >= 2
        assert "NVIDIA L4" in text


def test_what_was_not_compared_is_among_the_limits(planted: Results) -> None:
    found = limits(planted, analyses(planted, list(planted.declared)))
    assert any(line.startswith("Not compared: rank/r=16 and rank/r=8, along lora.r") for line in found)
