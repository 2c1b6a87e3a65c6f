"""What a user of the Python API sees: names, short representations, patterns, and errors that name arguments."""

from pathlib import Path

import pytest

import lorafile
from lorafile import ArgumentError, LoraError, SpecError, Study

SWEEP = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'


@pytest.fixture
def study(spec_file: Path) -> Study:
    spec_file.write_text(spec_file.read_text(encoding="utf-8") + SWEEP, encoding="utf-8")
    return Study.load(spec_file, spec_file.parent / ".lora")


def test_every_public_name_is_there_and_documented() -> None:
    assert set(lorafile.__all__) <= set(dir(lorafile))
    for name in lorafile.__all__:
        public = getattr(lorafile, name)
        assert isinstance(public, str) or public.__doc__
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        lorafile.Studdy  # noqa: B018


def test_representations_are_a_line(study: Study) -> None:
    plan = study.plan()
    results = study.gather()
    for each in (study, plan, plan.graph, results, *study.analyses(results)):
        assert len(repr(each)) < 300
        assert "\n" not in repr(each)
    assert f"{len(plan.changes)} run" in repr(plan)


def test_html_is_escaped(spec_file: Path) -> None:
    text = spec_file.read_text(encoding="utf-8").replace("[model]", 'question = "<b>&"\n[model]', 1)
    spec_file.write_text(text + SWEEP, encoding="utf-8")
    study = Study.load(spec_file, spec_file.parent / ".lora")
    html = study._repr_html_()
    assert "&lt;b&gt;&amp;" in html
    assert "<td>rank/r=2</td>" in html
    assert "<td>train</td>" in study.plan()._repr_html_()
    assert "<td>rank/r=4</td>" in study.gather()._repr_html_()
    assert all("<h4>" in analysis._repr_html_() for analysis in study.analyses())


def test_one_pattern_is_a_list_of_one(study: Study) -> None:
    as_text, as_list = study.plan(target="rank/r=2"), study.plan(target=["rank/r=2"])
    assert [change.key for change in as_text.changes] == [change.key for change in as_list.changes]
    assert 0 < len(as_text.changes) < len(study.plan().changes)


def test_errors_name_arguments(study: Study, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^target: nothing in this study matches 'rank/r=3'\. Did you mean"):
        study.plan(target="rank/r=3")
    with pytest.raises(ArgumentError, match=r'^gpu: "much" is neither a memory size'):
        study.plan("much")
    with pytest.raises(ArgumentError, match=r'^cluster: no cluster is named "moon"'):
        study.plan(cluster="moon")
    file = tmp_path / "wrong.toml"
    file.write_text("[study]\nname = 3\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        Study.load(file)
    assert isinstance(caught.value, LoraError)
    assert (2, "study.name") in [(problem.line, problem.setting) for problem in caught.value.problems]


def test_verdicts_have_the_columns_that_are_documented(study: Study) -> None:
    from lorafile.analysis.compare.compare import VERDICT_COLUMNS

    assert tuple(study.verdicts().columns) == VERDICT_COLUMNS
    documented = Study.verdicts.__doc__ or ""
    assert not [column for column in VERDICT_COLUMNS if f"`{column}`" not in documented]
