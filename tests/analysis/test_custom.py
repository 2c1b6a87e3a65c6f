import re
from dataclasses import replace
from pathlib import Path

import pytest
from results_fixture import study

from lorafile.analysis.common.base import Analysis
from lorafile.analysis.custom.custom import study_tables
from lorafile.analysis.registry import analyses
from lorafile.errors import SpecError
from lorafile.report.figures_json import specifications
from lorafile.report.html import page
from lorafile.report.markdown import document
from lorafile.report.writer import write_pictures
from lorafile.specs.load import parse
from lorafile.specs.tables.analysis import AnalysisTable

GOOD = """
import altair as alt

def analyse(results):
    print("said while it ran")
    done = results.runs[results.runs["outcome"] == "done"]
    by_rank = done.groupby("lora.r")[f"{results.split}.{results.primary}"].agg(["mean", "count"])
    frame = by_rank.reset_index().rename(columns={"lora.r": "rank"})
    chart = alt.Chart(frame).mark_line().encode(x="rank:Q", y="mean:Q")
    return {
        "title": "Mean by rank",
        "question": "How does it grow?",
        "sentences": "It grows with <b>it</b>.",
        "tables": by_rank,
        "charts": {"Mean by rank, drawn by hand": chart},
    }
"""
SPEC = """
study.name = "s"
model.path = "m"
data.path = "d"
[[analysis]]
kind = "own"
file = "own.py"
"""


def run(folder: Path, text: str) -> Analysis:
    (folder / "own.py").write_text(text, encoding="utf-8")
    (found,) = analyses(replace(study(), folder=folder), [AnalysisTable(kind="own", file="own.py")])
    return found


def test_an_analysis_of_ones_own_is_a_section_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(tmp_path, GOOD)
    assert (found.kind, found.name, found.title, found.failed) == ("own", "own-own", "Mean by rank", False)
    expected = study().runs
    of_eight = expected[(expected["configuration"] == "rank/r=8")]["test.exact_match"].mean()
    (table,) = found.tables
    assert [column.key for column in table.columns] == ["lora.r", "mean", "count"]
    assert table.frame.loc[table.frame["lora.r"] == 1, "count"].tolist() == [3]
    assert of_eight > table.frame.loc[table.frame["lora.r"] == 1, "mean"].item()
    results = study()
    html = page(results, [found])
    assert "It grows with &lt;b&gt;it&lt;/b&gt;." in html
    assert 'data-chart="own-own"' in html
    assert "![Mean by rank](charts/own-own.png)" in document(results, [found])
    assert write_pictures(specifications([found]), tmp_path)[0].read_bytes().startswith(b"\x89PNG")
    told = capsys.readouterr()
    assert "said while it ran" in told.err  # standard output is for `--json` alone
    assert told.out == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def analyse(results):\n    return results.runs['rank']", "own.py, line 2: KeyError: 'rank'"),
        ("import sys\ndef analyse(results):\n    sys.exit('enough')", "own.py, line 3: SystemExit: enough"),
        ("x = 1 / 0\ndef analyse(results): ...", "own.py, line 1: ZeroDivisionError: division by zero"),
        ("def analyse(results):\n    return 3", "own.py: analyse(results) must return a dictionary, not int"),
        ("def analyse(results):\n    return {'tabels': []}", "own.py: analyse(results) returned 'tabels'"),
        ("def analyse(results):\n    return {'tables': [3]}", "must be a pandas DataFrame, not int"),
        ("def analyse(results):\n    return {'charts': [3]}", "its charts must be Altair charts, not int"),
        (
            "import altair as alt\ndef analyse(results):\n"
            "    return {'charts': alt.Chart('https://example.org/x.csv').mark_bar().encode(x='a:Q')}",
            "a chart reads data from a URL",
        ),
    ],
)
def test_what_goes_wrong_is_one_sentence_that_nobody_can_miss(tmp_path: Path, text: str, told: str) -> None:
    found = run(tmp_path, text)
    assert found.failed
    assert told in found.sentences[0]
    assert found.sentences[0].endswith("This analysis has no result.")
    results = study()
    for report in (page(results, [found]), document(results, [found])):
        assert "Read this first" in report
        shown = report[: report.find("<script")]
        assert shown.count("This analysis has no result.") >= 2  # among the warnings, and where it would stand


def test_what_an_analysis_does_to_its_tables_shows_nowhere_else(tmp_path: Path) -> None:
    results = replace(study(), folder=tmp_path)
    (tmp_path / "own.py").write_text("def analyse(r):\n    r.runs['seed'] = 0\n    return {}")
    assert not analyses(results, [AnalysisTable(kind="own", file="own.py")])[0].failed
    assert 42 in set(results.runs["seed"])


def test_the_tables_have_settings_verdicts_and_examples() -> None:
    results = study()
    tables = study_tables(results)
    row = tables.runs[(tables.runs["configuration"] == "rank/r=4") & (tables.runs["seed"] == 42)].iloc[0]
    assert row["lora.r"] == 4
    assert tables.examples("rank/r=4", 42)["exact_match"].mean() == pytest.approx(row["test.exact_match"])
    one = tables.verdicts[(tables.verdicts["one"] == "rank/r=1")].iloc[0]
    assert (one["other"], one["verdict"]) == ("rank/r=8", "worse")
    assert one["low"] < one["difference"] < one["high"] < 0
    assert tables.better_is_more("exact_match") and not tables.better_is_more("log_loss")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, 's.toml:7:1: analysis[0].file: "own.py" cannot be read: No such file or directory'),
        ("def analyze(results): ...", 'analysis[0].file: "own.py" does not define the function analyse(results)'),
        ("def analyse(results) ...", 'analysis[0].file: "own.py", line 1 is not Python: expected'),
    ],
)
def test_a_file_that_cannot_be_run_is_a_mistake_in_the_spec(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "own.py").write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        parse(SPEC, tmp_path / "s.toml")
    assert told in str(caught.value)


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "reporting.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    found = run(tmp_path, code)
    assert not found.failed, found.sentences
    assert (found.title, len(found.tables), len(found.charts)) == ("Scores by rank", 1, 1)
    assert write_pictures(specifications([found]), tmp_path)
