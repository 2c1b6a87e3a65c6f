"""Several studies on one page: what they share stands once, and only what was measured on the same is tested."""

import json
from pathlib import Path

import pytest
from command_fixture import lora
from spec_fixture import BASIC

pytest.importorskip("torch")

from lorafile import Study
from lorafile.analysis.common.base import Analysis
from lorafile.analysis.multi_study.union import StudyUnion
from lorafile.errors import LoraError
from lorafile.study.multi_study import side_by_side

SPLIT = "split = {{ train = 16, validation = 6, test = 6 }}"


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> dict[str, Path]:
    """Three studies on one state: two on the same examples with one configuration in common, one on others."""
    where = tmp_path_factory.mktemp("studies")

    def spec(name: str, sweep: str, **other: str) -> Path:
        text = BASIC.format(model=tiny_model, data=rows_file).replace('"tiny"', f'"{name}"')
        for old, new in other.items():
            text = text.replace(old, new)
        file = where / f"{name}.toml"
        file.write_text(text + sweep, encoding="utf-8")
        Study.load(file, where / ".lora").apply()
        return file

    return {
        "a": spec("a", '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'),
        "b": spec("b", '[[sweep]]\nname = "place"\nlora.r = [4]\nlora.target_modules = ["all-linear", "mlp"]\n'),
        "c": spec("c", '[[sweep]]\nname = "rank"\nlora.r = [2]\n', **{"test = 6": "test = 8"}),
    }


def page(specs: dict[str, Path], names: str) -> tuple[StudyUnion, list[Analysis]]:
    return side_by_side([Study.load(specs[name], specs[name].parent / ".lora") for name in names])


def test_what_both_studies_have_stands_once_under_both_names(specs: dict[str, Path]) -> None:
    found, analyses = page(specs, "ab")
    names = [" = ".join(entry.all_names) for entry in found.entries]
    shared = "a: rank/r=4 = b: place/r=4,target_modules=all-linear"
    assert names == ["a: rank/r=2", shared, "b: place/r=4,target_modules=mlp"]
    assert list(found.results.runs["seed"]) == [1, 2, 1, 2, 1, 2]
    assert found.results.runs["key"].is_unique
    assert any(shared in line for line in analyses[0].sentences)
    assert list(analyses[0].tables[0].frame["shown"]) == names


def test_studies_with_other_test_examples_are_shown_and_never_tested(specs: dict[str, Path]) -> None:
    found, analyses = page(specs, "ac")
    assert [len(group) for group in found.groups()] == [2, 1]
    assert len(found.results.outcomes) == 12  # three configurations, two seeds, two splits
    assert not any(analysis.kind == "compare" for analysis in analyses)
    assert any("not tested: they do not share the held-out examples." in line for line in analyses[0].sentences)
    assert list(analyses[0].tables[0].frame["group"]) == ["A", "A", "B"]


def test_a_setting_that_only_the_specs_differ_in_is_what_is_compared(
    specs: dict[str, Path], tmp_path: Path, tiny_model: Path, rows_file: Path
) -> None:
    text = specs["a"].read_text(encoding="utf-8").replace("learning_rate = 1e-2", "learning_rate = 2e-2")
    (tmp_path / "d.toml").write_text(text.replace('"a"', '"d"'), encoding="utf-8")
    state = specs["a"].parent / ".lora"
    Study.load(tmp_path / "d.toml", state).apply()
    found, analyses = side_by_side([Study.load(specs["a"], state), Study.load(tmp_path / "d.toml", state)])
    rows = next(analysis for analysis in analyses if analysis.kind == "compare").tables[0].frame
    pairs = {(row["configuration"], row["against"]) for row in rows.to_dict("records") if row["factor"]}
    assert {("d: rank/r=2", "a: rank/r=2"), ("d: rank/r=4", "a: rank/r=4")} <= pairs
    assert set(rows["factor"]) <= {"train.learning_rate", ""}
    means = found.results.runs.groupby("configuration")["test.log_loss"].mean()
    for row in rows.to_dict("records"):
        assert row["difference"] == pytest.approx(means[row["configuration"]] - means[row["against"]])


def test_the_command_writes_one_page_for_several_specs(specs: dict[str, Path], tmp_path: Path) -> None:
    state = str(specs["a"].parent / ".lora")
    done = lora("report", str(specs["a"]), str(specs["b"]), "--state", state, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report" / "RESULTS.md").read_text(encoding="utf-8")
    assert "# a and b, side by side" in text
    answer = text.split("## Answer")[1].split("## Configurations")[0]
    assert "is the safe choice" not in answer and "Take " not in answer, "a recommendation is each study's own"
    printed = lora("report", str(specs["a"]), str(specs["b"]), "--state", state, "--json", cwd=tmp_path)
    assert next(row["configuration"] for row in json.loads(printed.stdout)["configurations"]) == "a: rank/r=2"


def test_a_spec_beside_itself_is_refused(specs: dict[str, Path]) -> None:
    with pytest.raises(LoraError, match="is given twice"):
        page(specs, "aa")


def test_studies_without_a_common_metric_say_so(specs: dict[str, Path], tmp_path: Path) -> None:
    text = specs["a"].read_text(encoding="utf-8").replace('["log_loss"]', '["exact_match"]')
    (tmp_path / "e.toml").write_text(text, encoding="utf-8")
    state = specs["a"].parent / ".lora"
    with pytest.raises(LoraError, match="no metric in common"):
        side_by_side([Study.load(specs["a"], state), Study.load(tmp_path / "e.toml", state)])
