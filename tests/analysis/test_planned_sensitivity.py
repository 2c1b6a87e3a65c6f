"""What a plan says that its study will be able to conclude: where the variance is from, and what follows from it."""

import json
from math import isnan
from pathlib import Path

import numpy as np
import pytest
from command_fixture import lora
from spec_fixture import message
from state_fixture import graph_of, write_study

from lorafile import Study
from lorafile.analysis.compare.outcomes import Crossed
from lorafile.analysis.sensitivity.mixes import detects
from lorafile.analysis.sensitivity.planned import PlannedSensitivity, study_size
from lorafile.analysis.sensitivity.variances import from_outcomes
from lorafile.errors import LoraError
from lorafile.files.jsonl import write_lines
from lorafile.plan.cost import estimate_cost
from lorafile.state import Attempt, Node, State
from lorafile.statistics.crossed import Outcomes, pool

ROWS = 400
SPEC = """
[study]
name = "pilot"
seeds = [1, 2, 3]
[model]
path = "builtin:facts-llama"
[data]
path = "{data}"
split = {{ train = 100, validation = 50, test = 80 }}
[profile]
enabled = false
[evaluate]
metrics = ["exact_match"]
[verdict]
margin = "5pt"
[[sweep]]
name = "rank"
lora.r = [4, 8, 16]
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"where does anna number {n} live ?", "completion": " paris"} for n in range(ROWS)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return write_study(tmp_path, SPEC.format(data=data))


def score(spec: Path, seeds: int = 3) -> Path:
    """Record a study's predictions of test as scored: seven answers of ten right, hard ones being hard for all."""
    state, graph, rng = spec.parent / ".lora", graph_of(spec), np.random.default_rng(8)
    hard, file = rng.normal(size=80), spec.parent / "outcomes"
    with State.write(state) as store:
        for node in graph.nodes.values():
            files, figures = {}, {}
            if node.kind == "score" and node.seed not in range(1, seeds + 1):
                continue
            if node.kind == "score":
                right = hard + 0.2 * rng.normal() + 0.7 * rng.normal(size=80) < 0.6
                write_lines(file, [{"row": n, "exact_match": float(answer)} for n, answer in enumerate(right)])
                figures, files = {"exact_match": float(right.mean())}, {"outcomes.jsonl.gz": file}
            reads = {role: dict[str, str]() for role in node.inputs}
            about = {"started": "2026-11-01T10:00:00+00:00", "study": graph.spec.name, "address": node.address}
            attempt = Attempt(node.key, node.kind, "done", seconds=2.0, figures=figures, reads=reads, **about)
            store.record(Node(node.key, node.kind, node.version, node.settings, node.inputs), attempt, files)
    return state


def edited(spec: Path, old: str, new: str) -> Study:
    text = spec.read_text(encoding="utf-8")
    assert old in text
    spec.write_text(text.replace(old, new), encoding="utf-8")
    return Study.load(spec, spec.parent / ".lora")


def stated(study: Study) -> PlannedSensitivity:
    planned = study.sensitivity(study.plan())
    assert planned is not None
    return planned


def test_outcomes_tell_the_variances_that_they_were_drawn_with() -> None:
    runs, own, rest, rng = 0.1, 0.15, 0.35, np.random.default_rng(2)
    values = 0.7 * rng.normal(size=4000) + own**0.5 * rng.normal(size=(40, 1, 4000))
    values = values + runs * rng.normal(size=(40, 6, 1)) + rest**0.5 * rng.normal(size=(40, 6, 4000))
    sides = [Outcomes(each) for each in values]
    found = from_outcomes(Crossed({str(at): side for at, side in enumerate(sides)}, {}, pool(sides), ""), "a pilot")
    assert found is not None
    assert found.runs == pytest.approx(runs**2 + rest / 4000, rel=0.25)
    assert found.residual == pytest.approx(rest, rel=0.02)
    assert found.examples == pytest.approx(2 * own, rel=0.05)
    assert (found.n, found.binary) == (4000, False)
    assert 190 <= found.df <= 200, "one that is noisy by chance may be left out"


def test_with_nothing_known_a_plan_names_the_setting_and_detect_ends(spec: Path) -> None:
    assert stated(Study.load(spec, spec.parent / ".lora")).variance is None
    shown = lora("plan", "study.toml", cwd=spec.parent).stdout
    assert "verdict.expect_sd" in shown
    assert "detect" in shown
    asked = lora("plan", "study.toml", "--detect", "1pt", cwd=spec.parent)
    assert asked.returncode == 1
    assert "verdict.expect_sd" in asked.stderr


def test_another_study_in_the_state_is_named_as_the_source(spec: Path) -> None:
    score(spec)
    text = (
        spec.read_text(encoding="utf-8")
        .replace('"pilot"', '"next"')
        .replace("[profile]", "[train]\nlearning_rate = 1e-3\n[profile]")
    )
    spec.write_text(text, encoding="utf-8")
    planned = stated(Study.load(spec, spec.parent / ".lora"))
    assert planned.variance is not None
    assert 'study "pilot"' in planned.variance.source
    assert planned.variance.df == 6
    assert planned.variance.mean == pytest.approx(0.7, abs=0.1)
    low, high = planned.difference_range
    assert low < planned.difference
    assert isnan(high) or planned.difference < high
    assert planned.margin == pytest.approx(0.05)


def test_own_runs_come_before_those_of_others_and_before_a_guess(spec: Path) -> None:
    score(spec)
    study = edited(spec, 'margin = "5pt"', 'margin = "5pt"\nexpect_sd = "3pt"')
    variance = stated(study).variance
    assert variance is not None
    assert variance.source == "3 configurations of this study"


def test_one_seed_tells_no_variance(spec: Path) -> None:
    score(spec, seeds=1)
    assert stated(Study.load(spec, spec.parent / ".lora")).variance is None


def test_a_guess_takes_answers_to_vary_as_coins_do(spec: Path) -> None:
    planned = stated(edited(spec, 'margin = "5pt"', 'expect_sd = "3pt"'))
    variance = planned.variance
    assert variance is not None
    assert variance.runs == pytest.approx(0.03**2)
    assert variance.examples == pytest.approx(0.5)
    assert variance.bound
    exact = stated(edited(spec, 'expect_sd = "3pt"', 'expect_sd = { runs = "3pt", examples = "20pt" }'))
    assert exact.difference < planned.difference
    assert isnan(exact.difference_range[0])


def test_a_published_deviation_comes_before_a_guess(spec: Path) -> None:
    more = '[[reference]]\nname = "LoRA"\nvalue = 0.48\nsd = 0.012\nseeds = 5\nsource = "a paper"\n'
    planned = stated(edited(spec, "[[sweep]]", f"{more}[[sweep]]"))
    assert planned.variance is not None
    assert '"LoRA" (a paper)' in planned.variance.source
    assert planned.variance.df == 4
    assert planned.variance.examples == pytest.approx(2 * 0.48 * 0.52)


def test_points_of_a_metric_without_points_are_refused() -> None:
    text = 'evaluate.metrics = ["log_loss"]\nverdict.expect_sd = "1pt"\n'
    assert "log_loss is not a percentage" in message(text)
    assert "standard deviation" in message('verdict.expect_sd = "1%"\n')


def test_detect_names_a_mix_that_detects_it_and_costs_what_its_plan_does(spec: Path) -> None:
    score(spec)
    study = Study.load(spec, spec.parent / ".lora")
    plan = study.plan()
    planned = stated(study)
    found = study.detection(plan, "18pt")
    assert found.mix is not None
    size = planned.size.with_seeds(found.mix.seeds).with_rows(found.mix.rows)
    assert detects(planned, size, 0.18)
    assert not detects(planned, planned.size.with_seeds(found.mix.seeds - 1), 0.18)
    text = spec.read_text(encoding="utf-8").replace("seeds = [1, 2, 3]", f"seeds = {[*range(1, found.mix.seeds + 1)]}")
    spec.write_text(text.replace("test = 80", f"test = {found.mix.rows}"), encoding="utf-8")
    made = Study.load(spec, spec.parent / ".lora").plan()
    assert estimate_cost(made).seconds == pytest.approx(found.mix.cost.seconds)
    assert study_size(made)[0] == size


def test_rows_that_are_not_there_are_not_promised(spec: Path) -> None:
    score(spec)
    study = Study.load(spec, spec.parent / ".lora")
    found = study.detection(study.plan(), "1pt")
    assert found.mix is None
    assert found.most_rows == ROWS - 100 - 50
    assert found.enough_rows is None or found.enough_rows > found.most_rows


def test_what_is_no_difference_is_refused(spec: Path) -> None:
    score(spec)
    study = Study.load(spec, spec.parent / ".lora")
    for wrong in ("much", "-1pt", "0"):
        with pytest.raises(LoraError, match=r"^difference: "):
            study.detection(study.plan(), wrong)


def test_text_json_and_markdown_say_the_same(spec: Path) -> None:
    score(spec)
    asked = ("plan", "study.toml", "--detect", "18pt")
    shown = " ".join(lora(*asked, cwd=spec.parent, COLUMNS="200").stdout.split())
    document = json.loads(lora(*asked, "--json", cwd=spec.parent).stdout)["sensitivity"]
    markdown = lora(*asked, "--markdown", cwd=spec.parent).stdout
    first = document["sentences"][0]
    assert first in shown
    assert "80 % power" in first
    assert "18.0 points" in markdown
    assert document["detect"]["wanted"] == pytest.approx(0.18)
    assert document["difference"] == pytest.approx(stated(Study.load(spec, spec.parent / ".lora")).difference)
