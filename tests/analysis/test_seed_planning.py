"""`--resolve`: what decides what is open, from the variances alone, and the stage as the spec file gets it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli
from command_fixture import lora

from lorafile import Study, specs
from lorafile.analysis.compare import compare
from lorafile.analysis.compare.outcomes import crossed
from lorafile.analysis.compare.verdicts import family
from lorafile.analysis.seed_planning import Resolution, resolution
from lorafile.cli.views.seed_stage import sentences
from lorafile.errors import SpecError, StalePlan
from lorafile.report.content import facts
from lorafile.results.results import Results
from lorafile.specs.tables.analysis import AnalysisTable
from lorafile.statistics.crossed import contrast
from lorafile.statistics.planning import more_seeds
from lorafile.study.seed_stage import append, block, resolve

SPEC = """\
[study]
name = "s"
seeds = [1, 2, 3]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[evaluate]
metrics = ["exact_match"]
[[sweep]]
name = "rank"
lora.r = [4, 8, 16]
[verdict]
margin = "6pt"
"""
NAMES = ("rank/r=4", "rank/r=8", "rank/r=16")


def made(text: str = SPEC, runs: float = 0.04, examples: float = 0.1, n: int = 400, outcome: str = "done") -> Results:
    """Three ranks that do not differ: seeds differ by `runs`, examples between two ranks by `examples` or more."""
    tables = specs.parse(text, Path("study.toml")).tables
    noise, rows, outcomes = np.random.default_rng(3), [], {}
    looks = [tuple(tables.study.seeds), *(tuple(stage.seeds) for stage in tables.stage)]
    for name in NAMES:
        each = noise.normal(0, examples, n)
        for seed in (seed for seeds in looks for seed in seeds):
            values = 0.5 + each + noise.normal(0, runs) + noise.normal(0, 0.05, n)
            row = {"configuration": name, "sweep": "rank", "seed": seed, "outcome": "done", "message": "", "key": ""}
            rows.append(row | {"test.exact_match": values.mean(), "test.examples": n})
            outcomes[name, seed, "test"] = pd.DataFrame({"row": range(n), "exact_match": values})
    rows[-1]["outcome"] = outcome
    configurations = [
        {"configuration": name, "sweep": "rank", "aliases": [], "method": "lora", "trained": True, "lora.r": rank}
        for rank, name in zip((4, 8, 16), NAMES, strict=True)
    ]
    nothing = pd.DataFrame()
    return Results(
        study="s",
        question="",
        title="s",
        primary="exact_match",
        metrics=("exact_match",),
        seeds=looks[0],
        configurations=pd.DataFrame(configurations),
        runs=pd.DataFrame(rows),
        profiles=nothing,
        curves=nothing,
        outcomes=outcomes,
        verdict=tables.verdict,
        declared=tuple(tables.analysis),
        looks=tuple(looks),
    )


def planned(text: str = SPEC, most: int = 40, **about: Any) -> Resolution:
    return resolution(made(text, **about), specs.parse(text, Path("study.toml")), most)


def test_the_stage_has_the_seeds_that_decide_at_the_next_looks_share_of_alpha() -> None:
    found, results = planned(), made()
    data = crossed(results, "exact_match", "test")
    [first, _] = found.undecided
    estimate = contrast(data.outcomes[first.one], data.outcomes[first.other], data.variance)
    assert found.alpha == pytest.approx(0.05 * 0.2 * 0.8 * 0.8)
    assert first.seeds == more_seeds(estimate, 0.06, found.alpha / 2, others=1)
    assert found.configurations == NAMES
    assert found.seeds == tuple(range(4, 4 + max(one.seeds or 0 for one in found.undecided)))
    assert all(
        "more seeds would decide (margin 6.0 points, 80 % power, stage 1 at 0.64" in told
        for told in sentences(found)[:2]
    )


def test_the_observed_difference_plays_no_part() -> None:
    text = SPEC.replace('"6pt"', "0.06")
    results = made(text)
    for (name, *_), frame in results.outcomes.items():
        frame["exact_match"] += 0.03 if name == NAMES[0] else 0.0
    results.runs.loc[results.runs["configuration"] == NAMES[0], "test.exact_match"] += 0.03
    moved = resolution(results, specs.parse(text, Path("study.toml")), 40)
    assert moved.seeds
    assert (moved.seeds, moved.configurations) == (planned(text).seeds, planned(text).configurations)


def test_a_second_stage_has_a_smaller_share_and_new_seeds() -> None:
    found = planned(SPEC + "[[stage]]\nseeds = [9, 7]\n", runs=0.06)
    assert (found.stage, found.alpha) == (2, pytest.approx(0.05 * 0.2**2 * 0.8 * 0.8))
    assert not found.seeds or found.seeds[0] == 10
    assert planned(SPEC + "[[stage]]\nseeds = [9, 7]\n", runs=0.06, most=1000).seeds[0] == 10


def test_what_the_first_look_decides_stands_and_the_report_says_which_look_it_was() -> None:
    results = made(SPEC + "[[stage]]\nseeds = [9, 7, 11, 12]\n", runs=0.03)
    for (name, seed, _), frame in results.outcomes.items():  # far apart under the first seeds, alike under the stage's
        if name == NAMES[1] and seed in (1, 2, 3):
            frame["exact_match"] += 0.5
            results.runs.loc[
                (results.runs.configuration == name) & (results.runs.seed == seed), "test.exact_match"
            ] += 0.5
    assert [(one.word, one.look) for one in family(results).verdicts] == [("better", 0), ("inconclusive", 1)]
    [compared] = compare.analyse(results, AnalysisTable(kind="compare"))
    assert "at 3.2\u202f% in the first look and at 0.64\u202f% in stage 1" in compared.sentences[0]
    assert list(compared.tables[0].frame["tested"]) == ["the first look, 3.2\u202f%", "stage 1, 0.64\u202f%"]
    told = {fact.name: fact.value for fact in facts(results)}
    assert told["first look"] == "tested at 4\u202f%"
    assert told["stage 1"].startswith("seeds 9, 7, 11 and 12 of rank/r=4, rank/r=8 and rank/r=16; tested at 0.8")
    assert told["alpha"].endswith("of which 0.2\u202f% is kept for stages")


def test_more_seeds_than_allowed_are_not_planned_and_said() -> None:
    found = planned(most=2)
    assert (found.seeds, found.configurations) == ((), ())
    told = sentences(found)
    assert "more than --max-seeds 2; none is planned" in told[0]
    assert told[-1] == "No stage is planned: 2 more seeds would decide none of them."


def test_what_examples_carry_asks_for_examples() -> None:
    found = planned(runs=0.001, examples=0.6)
    assert found.seeds == ()
    assert all(one.seeds is None and one.examples is not None and one.examples > 400 for one in found.undecided)
    assert "no number of seeds would: the 400 examples alone vary too much" in sentences(found)[0]
    assert "data.split.test" in sentences(found)[0]


def test_without_a_margin_or_without_alpha_the_setting_is_named() -> None:
    with pytest.raises(SpecError, match=r"verdict.margin: is not set.* points is detected with 80"):
        planned(SPEC.replace('margin = "6pt"', ""))
    with pytest.raises(SpecError, match=r"study\.toml:14:1: verdict\.keep: is 0"):
        planned(SPEC.replace('margin = "6pt"', 'keep = 0\nmargin = "6pt"'))


def test_nothing_is_planned_before_every_run_has_a_result_or_when_all_is_decided() -> None:
    assert sentences(planned(outcome="missing")) == [
        "No stage is planned: 1 of 9 runs has no result yet. Run lora apply first: a stage depends on all of them."
    ]
    assert "each of the 2 comparisons has its verdict" in sentences(planned(SPEC.replace("6pt", "40pt")))[0]


def test_the_block_is_added_at_the_end_and_nothing_else_is_touched(tmp_path: Path, monkeypatch: Any) -> None:
    file, link = tmp_path / "real.toml", tmp_path / "study.toml"
    before = SPEC.replace("\n", "\r\n") + "# the end, without a line end"
    file.write_bytes(before.encode())
    file.chmod(0o640)
    link.symlink_to(file)
    monkeypatch.setattr(Study, "gather", lambda _: made())
    study, found = resolve(Study.load(link, tmp_path / "state"), 40)
    assert found is not None and found.seeds
    assert file.read_bytes() == before.encode()
    append(study, found)
    after = file.read_bytes().decode()
    assert after.startswith(before + "\r\n\r\n# 20")
    assert after.replace("\r\n", "\n").endswith(block(found))
    assert (specs.load(link), link.is_symlink(), file.stat().st_mode & 0o777) == (study.spec, True, 0o640)
    with pytest.raises(StalePlan, match="changed after the plan was made"):
        append(study, found)


def test_names_that_toml_has_to_escape_come_back_as_they_are() -> None:
    names = ('own/say "hi"', "own/back\\slash", "own/\x7f", "own/\u2028ö😀")
    found = Resolution("m", "test", 1, 0.008, 0.002, 20, seeds=(4,), configurations=names)
    assert tomli.loads(block(found)) == {"stage": [{"seeds": [4], "configurations": list(names)}]}


def test_stages_in_a_list_cannot_be_added_to(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "study.toml"
    text = "stage = [{ seeds = [8] }]\n" + SPEC
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(Study, "gather", lambda _: made(SPEC + "[[stage]]\nseeds = [8]\n", runs=0.06))
    with pytest.raises(
        SpecError, match=r"study.toml:1:1: stage: should be written as blocks that start with \[\[stage"
    ):
        resolve(Study.load(file, tmp_path / "state"), 1000)


def test_a_study_is_resolved_by_apply_and_then_there_is_nothing_to_do(spec_file: Path) -> None:
    pytest.importorskip("torch")
    here = spec_file.parent
    text = spec_file.read_text(encoding="utf-8") + '[[sweep]]\nname = "rank"\nlora.lora_dropout = [0.0, 0.1]\n'
    spec_file.write_text(text, encoding="utf-8")
    assert lora("apply", "--yes", cwd=here).returncode == 0
    open_ = lora("plan", "--resolve", cwd=here)
    assert (open_.returncode, "verdict.margin: is not set" in open_.stderr) == (3, True), open_.stdout + open_.stderr
    spec_file.write_text(text + f"[verdict]\nmargin = {margin(spec_file)}\n", encoding="utf-8")
    before = spec_file.read_bytes()
    plan = json.loads(lora("plan", "--resolve", "--json", cwd=here).stdout)
    stage = plan["resolve"]
    assert spec_file.read_bytes() == before
    assert plan["summary"]["run"] == 10 * len(stage["seeds"])
    assert stage["seeds"] in ([3], [3, 4], [3, 4, 5], [3, 4, 5, 6])
    assert lora("apply", "--resolve", cwd=here).returncode == 1  # nobody is there to approve it
    assert spec_file.read_bytes() == before
    done = lora("apply", "--resolve", "--yes", cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    assert spec_file.read_text(encoding="utf-8").endswith(stage["toml"])
    assert [len(seeds) for seeds in Study.load(spec_file, here / ".lora").gather().looks] == [2, len(stage["seeds"])]
    assert lora("plan", "--detailed-exitcode", cwd=here).returncode == 0


def margin(file: Path) -> float:
    """A margin that four more seeds decide, so that the test trains few."""
    results = Study.load(file, file.parent / ".lora").gather()
    [verdict] = family(results).verdicts
    assert verdict.estimate is not None and verdict.open, verdict
    sizes = np.geomspace(verdict.estimate.error, 100 * verdict.estimate.error, 200)
    return float(next(size for size in sizes if (more_seeds(verdict.estimate, size, 0.008) or 99) <= 3))
