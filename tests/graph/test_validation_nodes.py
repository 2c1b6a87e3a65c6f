"""Evaluations while a run trains: what enters a key, what is refused, and what plan, results and report say of them."""

from pathlib import Path
from typing import Any

import pytest
from spec_fixture import BASE, message

from lorafile import Study
from lorafile.engine.stacking.compatible import training_class
from lorafile.errors import SpecError
from lorafile.graph.graph import GraphNode
from lorafile.plan.training_summary import run_steps, training_lines

pytest.importorskip("torch")

EVALUATED = "eval_steps = 2\nload_best_model_at_end = true\nearly_stopping_patience = 3\n"
TRAINER = '[trainer.own]\ncommand = ["python", "own.py"]\n'


def study(spec_file: Path, train: str = "", *changes: tuple[str, str], more: str = "") -> Study:
    """Return the study of a spec with other settings; the file itself stays."""
    text = spec_file.read_text(encoding="utf-8").replace("[evaluate]", f"{train}\n[evaluate]")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    file = spec_file.with_name("other.toml")
    file.write_text(text + more, encoding="utf-8")
    return Study.load(file, spec_file.parent / "state")


def trained(of: Study) -> dict[str, GraphNode]:
    return {node.address: node for node in of.plan().graph.nodes.values() if node.kind == "train"}


def keys(of: Study) -> list[str]:
    return [node.key for node in trained(of).values()]


def test_only_a_run_that_is_evaluated_reads_validation_and_has_another_key(spec_file: Path) -> None:
    points = "[{ name = 'plain', lora.r = 16 }, { name = 'evaluated', train.eval_steps = 2 }]"
    sweep = f"[[sweep]]\nname = 's'\nconfigurations = {points}\n"
    plain, both = trained(study(spec_file)), trained(study(spec_file, more=sweep))
    graph = study(spec_file, more=sweep).plan().graph
    assert both["s/plain/seed=1:train"].key == plain["lora/seed=1:train"].key
    assert set(both["s/plain/seed=1:train"].inputs) == {"train"}
    evaluated = both["s/evaluated/seed=1:train"]
    assert {role: graph.nodes[key].split for role, key in evaluated.inputs.items()} == {
        "train": "train",
        "validation": "validation",
    }
    assert evaluated.key != plain["lora/seed=1:train"].key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("eval_steps = 2", "eval_steps = 2\nmax_eval_samples = 6", True),  # there are no more
        ("eval_steps = 2", "eval_steps = 2\nmax_eval_samples = 5", False),
        ("eval_steps = 2", 'eval_steps = 2\nmetric_for_best_model = "log_loss"', True),
        ("eval_steps = 2", "eval_steps = 2\nload_best_model_at_end = true", False),
        ("eval_steps = 2", "eval_steps = 3", False),
        ("", "init_seed = 1", False),
        ("init_seed = 2", "init_seed = 1", False),
    ],
)
def test_what_decides_the_choice_is_in_the_key(spec_file: Path, one: str, other: str, same: bool) -> None:
    assert (keys(study(spec_file, one)) == keys(study(spec_file, other))) is same


def test_nothing_of_full_fine_tuning_is_drawn(spec_file: Path) -> None:
    full = ("[train]", 'method = "full"\n[train]')
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text('method = "full"\n' + text, encoding="utf-8")
    assert full[0] in text
    assert keys(study(spec_file, "init_seed = 1")) == keys(study(spec_file))


def test_runs_that_are_evaluated_are_trained_alone(spec_file: Path) -> None:
    (plain, *_), (evaluated, *_) = (list(trained(study(spec_file, words)).values()) for words in ("", EVALUATED))
    (started, *_) = trained(study(spec_file, "init_seed = 1")).values()
    assert training_class(plain.settings, "train") == training_class(started.settings, "train") != ""
    assert training_class(evaluated.settings, "train") == ""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("train.load_best_model_at_end = true", "has no effect without evaluations; also set train.eval_steps"),
        ("train.max_eval_samples = 3", "has no effect without evaluations"),
        ("[train]\neval_steps = 5\nearly_stopping_threshold = 0.1", "also set early_stopping_patience"),
        (
            "[train]\neval_steps = 5\nmetric_for_best_model = 'eval_loss'\n[evaluate]\nmetrics = ['exact_match']",
            '"eval_loss" is not a built-in metric of evaluate.metrics; use one of them: log_loss, exact_match',
        ),
        ("train.eval_steps = 0", "should be greater than 0"),
    ],
)
def test_a_setting_that_cannot_act_is_refused(text: str, part: str) -> None:
    told = message(BASE + text, base="")
    assert part in told
    assert "train." in told


def test_a_study_without_validation_cannot_be_evaluated_on_it(spec_file: Path) -> None:
    told = r"other.toml:\d+:1: train.eval_steps: .* no validation split; define one in data.split"
    with pytest.raises(SpecError, match=told):
        study(spec_file, "eval_steps = 2", ("validation = 6, ", "")).plan()


@pytest.mark.parametrize("setting", ["eval_steps", "init_seed"])
def test_a_program_is_not_evaluated_while_it_trains(spec_file: Path, setting: str) -> None:
    spec_file.with_name("own.py").write_text("", encoding="utf-8")
    with pytest.raises(SpecError, match=rf"train.{setting}: only the built-in training loop .*, not \[trainer.own\]"):
        study(spec_file, f'trainer = "own"\n{setting} = 2', more=TRAINER).plan()


def test_a_plan_says_what_training_reads_and_counts_its_time(spec_file: Path) -> None:
    plain, evaluated = study(spec_file).plan(), study(spec_file, EVALUATED).plan()
    line = next(line for line in training_lines([], run_steps(evaluated)) if "evaluation" in line)
    assert line == (
        "While training: about 2 evaluations on 6 validation rows (log_loss); by log_loss, the best step is kept and "
        "training stops after 3 evaluations without improvement."
    )
    assert not any("evaluation" in line for line in training_lines([], run_steps(plain)))
    of_training = ([c for c in plan.work if c.kind == "train" and c.forecast] for plan in (plain, evaluated))
    without, with_them = (sum(c.forecast["seconds"] for c in work if c.forecast) for work in of_training)
    assert without < with_them < 3 * without


def test_a_report_shows_the_loss_on_validation_the_chosen_step_and_that_it_was_chosen(spec_file: Path) -> None:
    training = "max_steps = 12\nlearning_rate = 1e-1\nlr_scheduler_type = 'constant'"
    fast = ("max_steps = 3\nlearning_rate = 1e-2", training)
    ranks = "[[sweep]]\nname = 'rank'\nlora.r = [2, 4]\n"
    applied = study(spec_file, EVALUATED, fast, more=ranks)
    attempts = [attempt for attempt in applied.apply(workers=1).attempts if attempt.kind == "train"]
    assert {attempt.outcome for attempt in attempts} == {"done"}
    results = applied.gather()
    rows: list[dict[str, Any]] = results.validations.to_dict("records")
    assert {(row["configuration"], row["seed"]) for row in rows} == {(f"rank/r={r}", s) for r in (2, 4) for s in (1, 2)}
    for attempt in attempts:
        mine = [row for row in rows if attempt.address == f"{row['configuration']}/seed={row['seed']}:train"]
        best = min(mine, key=lambda row: row["log_loss"])
        assert best["step"] == attempt.figures["chosen_step"]
        assert [row["step"] for row in mine if row["chosen"]] == [best["step"]]
        assert best["loss"] == best["log_loss"] == attempt.figures["best_metric"]
    for run in results.runs.to_dict("records"):  # the stored weights are those of the step
        assert run["validation.log_loss"] == pytest.approx(run["best_metric"], rel=1e-4)
    (warning,) = [line for line in results.warnings if "chose the training step on validation" in line]
    assert warning.startswith("4 runs chose")
    (curves,) = [analysis for analysis in applied.analyses() if analysis.kind == "curves"]
    assert any("are optimistic for these runs; tests use test." in sentence for sentence in curves.sentences)
    assert "Dashed: loss on validation" in curves.captions["curves"]
    marks = str(curves.charts["curves"].to_dict())
    assert "validation-curve" in marks
    assert "chosen-step" in marks
    (table,) = curves.tables
    assert sorted(table.frame["chosen_step"]) == sorted(attempt.figures["chosen_step"] for attempt in attempts)


def test_without_a_test_split_there_is_no_verdict_on_what_validation_chose(spec_file: Path) -> None:
    ranks = "[[sweep]]\nname = 'rank'\nlora.r = [2, 4]\n"
    no_test = (", test = 6", "")
    for train, expected in (("", False), (EVALUATED, True)):
        applied = study(spec_file, train, no_test, more=ranks)
        applied.apply(workers=1)
        (verdict,) = applied.verdicts().to_dict("records")
        assert ("was chosen on validation, and there is no test split" in str(verdict)) is expected
