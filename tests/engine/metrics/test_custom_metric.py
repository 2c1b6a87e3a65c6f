"""A user's own metric: what is read of its file, how it fails, and what an edit costs."""

from pathlib import Path

import pytest

from lorafile import Study
from lorafile.analysis.registry import analyses
from lorafile.engine.metrics.custom import CustomMetric, read_custom_metric, run_custom_metric
from lorafile.engine.metrics.registry import more_is_better
from lorafile.errors import NodeError, SpecError
from lorafile.report.markdown import document
from lorafile.specs import load

ROWS = [{"row": n, "answer": "x" * n, "reference": "y"} for n in range(4)]
BREVITY = 'UNIT = "characters"\nMORE_IS_BETTER = False\n\n\ndef score(row):\n    return len(row["answer"])\n'


def metric(folder: Path, text: str, name: str = "brevity.py") -> CustomMetric:
    (folder / name).write_text(text, encoding="utf-8")
    return read_custom_metric(name, name.removesuffix(".py"), folder)


def test_a_file_is_read_without_being_run(tmp_path: Path) -> None:
    found = metric(tmp_path, 'NEEDS = "likelihood"\nraise SystemExit\n' + BREVITY)
    assert (found.needs, found.unit, found.more_is_better) == ("likelihood", "characters", False)
    plain = metric(tmp_path, "from statistics import fmean as score\n")
    assert (plain.needs, plain.unit, plain.more_is_better) == ("generation", "", True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def score(row:\n", "brevity.py:1 is not Python: '(' was never closed"),
        ("X = 1\n", "brevity.py defines neither compute(rows) nor score(row)"),
        ("def score(row): ...\ndef compute(rows): ...\n", "brevity.py defines both compute and score; keep one"),
        ('NEEDS = "answers"\n' + BREVITY, "NEEDS should be one of likelihood, generation, choice, regression, not"),
        (BREVITY + "MORE_IS_BETTER = 1\n", "brevity.py:7: MORE_IS_BETTER should be True or False"),
    ],
)
def test_a_file_that_is_no_metric_says_why(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(NodeError) as error:
        metric(tmp_path, text)
    assert told in str(error.value)


def test_figures_come_from_a_mean_or_from_the_file_itself(tmp_path: Path) -> None:
    assert run_custom_metric(metric(tmp_path, BREVITY), ROWS, 60) == (1.5, [0, 1, 2, 3])
    whole = "def compute(rows):\n    each = [len(row['answer']) for row in rows]\n    return max(each), each\n"
    assert run_custom_metric(metric(tmp_path, whole), ROWS, 60) == (3, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return 1 / len(row['answer'])", "own.py, line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "own.py, line 2: SystemExit: 3"),
        ("return 'long'", "own.py: TypeError: score(row) of row 0 should be a number, not str"),
        ("return float('nan')", "own.py: ValueError: score(row) of row 0 is nan, which is not a finite number"),
        ("import os; os._exit(7)", "own.py exited with code 7 before it returned a value"),
        ("import os; os.kill(os.getpid(), 9)", "own.py was killed by SIGKILL before it returned a value"),
        ("import time; time.sleep(60)", "own.py took more than 2 s. Raise evaluate.metric_timeout"),
        ("import missing_helper", "own.py, line 2: ModuleNotFoundError: No module named 'missing_helper'"),
    ],
)
def test_whatever_a_file_does_is_one_sentence(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(NodeError) as error:
        run_custom_metric(metric(tmp_path, f"def score(row):\n    {body}\n", "own.py"), ROWS, 2)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_line_is_told_when_the_spec_is_named_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metric(tmp_path, "def score(row):\n    return row['none']\n")
    with pytest.raises(NodeError, match=r"brevity\.py, line 2: KeyError: 'none'"):
        run_custom_metric(read_custom_metric("brevity.py", "brevity", Path()), ROWS, 60)


def test_a_file_s_name_shadows_no_module(tmp_path: Path) -> None:
    text = "import statistics\n\n\ndef score(row):\n    return statistics.fmean([len(row['answer'])])\n"
    assert run_custom_metric(metric(tmp_path, text, "statistics.py"), ROWS, 60)[0] == 1.5


def test_a_file_that_changes_after_the_plan_is_not_run(tmp_path: Path) -> None:
    found = metric(tmp_path, BREVITY)
    metric(tmp_path, BREVITY + "# changed\n")
    with pytest.raises(NodeError, match="changed after the plan"):
        run_custom_metric(found, ROWS, 60)


def with_metrics(spec_file: Path, metrics: str) -> Path:
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace('metrics = ["log_loss"]', f"metrics = {metrics}"), encoding="utf-8")
    return spec_file


def study(spec_file: Path) -> Study:
    return Study.load(spec_file, spec_file.parent / ".lora")


def test_misspelt_metrics_are_suggested_and_clashing_names_refused(spec_file: Path) -> None:
    with pytest.raises(SpecError, match=r'evaluate\.metrics\[1\]: .*did you mean "rougeL"'):
        load(with_metrics(spec_file, '["log_loss", "rougel"]'))
    text = spec_file.read_text(encoding="utf-8")
    clashing = '["a/brevity.py", "b/brevity.py", "log_loss.py"]'
    spec_file.write_text(text.replace('["log_loss", "rougel"]', clashing), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        load(spec_file)
    assert '"a/brevity.py" would have the same name, brevity' in str(error.value)
    assert "log_loss is the name of a built-in metric" in str(error.value)


def test_a_missing_file_is_told_where_it_is_named(spec_file: Path) -> None:
    with pytest.raises(SpecError, match=r"evaluate\.metrics\[1\]: .*gone\.py cannot be read: No such file"):
        study(with_metrics(spec_file, '["log_loss", "gone.py"]')).plan()


def test_a_metric_file_that_raises_fails_alone_and_an_edit_scores_again_and_nothing_else(spec_file: Path) -> None:
    pytest.importorskip("torch")
    folder = spec_file.parent / "metrics"
    folder.mkdir()
    (folder / "brevity.py").write_text(BREVITY, encoding="utf-8")
    (folder / "raises.py").write_text('NEEDS = "likelihood"\ndef score(row):\n    return 1 / 0\n', encoding="utf-8")
    with_metrics(spec_file, '["log_loss", "metrics/brevity.py", "metrics/raises.py"]\nprimary = "metrics/brevity.py"')
    applied = study(spec_file).apply()
    failed = applied.with_outcome("failed")
    assert {attempt.kind for attempt in failed} == {"score"}
    assert len(failed) == 4, "two seeds, two splits"
    assert failed[0].address.endswith("/raises")
    assert failed[0].message == "evaluate.metrics: metrics/raises.py, line 3: ZeroDivisionError: division by zero"
    results = study(spec_file).gather()
    assert set(results.runs["outcome"]) == {"done"}
    assert results.runs["test.brevity"].notna().all()
    assert not more_is_better(results.primary)
    assert any("The metric raises has no value in 4 places" in warning for warning in results.warnings)
    text = document(results, analyses(results, []))
    assert "brevity on test (lower is better)" in text
    assert "primary; lower is better; characters" in text
    (folder / "raises.py").write_text('NEEDS = "likelihood"\ndef score(row):\n    return 2\n', encoding="utf-8")
    plan = study(spec_file).plan()
    assert {change.address.rpartition(":")[2] for change in plan.work} == {
        "score/validation/raises",
        "score/test/raises",
    }
    assert {attempt.outcome for attempt in study(spec_file).apply().attempts} == {"done"}
    (folder / "brevity.py").rename(folder / "shortness.py")
    spec_file.write_text(spec_file.read_text(encoding="utf-8").replace("brevity", "shortness"), encoding="utf-8")
    assert study(spec_file).plan().work == [], "a name is in no key"
