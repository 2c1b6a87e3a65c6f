"""`init_lora_weights` by a user's function in the graph: what is in its runs' keys, and what a wrong one is told."""

from pathlib import Path

import pytest
from spec_fixture import BASIC

from lorafile import Study
from lorafile.errors import SpecError
from lorafile.graph.build import build
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import resolve
from lorafile.specs import load

pytest.importorskip("torch")

INIT = "import helper\n\ndef mine(name, A, B, weight, generator):\n    return A * helper.X, B\n"
SWEEP = """
[[sweep]]
name = "init"
lora.init_lora_weights = [true, { file = "code/init.py", function = "mine" }]
"""
NAME = "init/init_lora_weights=code-init.mine"


@pytest.fixture
def file(tmp_path: Path, tiny_model: Path, rows_file: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "init.py").write_text(INIT, encoding="utf-8")
    (tmp_path / "code" / "helper.py").write_text("X = 2\n", encoding="utf-8")
    (tmp_path / "code" / "other.py").write_text("Y = 2\n", encoding="utf-8")
    spec = tmp_path / "study.toml"
    spec.write_text(BASIC.format(model=tiny_model, data=rows_file) + SWEEP, encoding="utf-8")
    return spec


def graph_of(file: Path) -> Graph:
    spec = load(file)
    return build(spec, resolve(spec, None)[0])


def keys(file: Path) -> tuple[str, str]:
    """Return the keys of a run that begins as PEFT does, and of one that begins with the function."""
    replicates = graph_of(file).replicates
    one, other = (str(runs[0].train) for runs in replicates.values())
    return one, other


def test_content_is_in_the_key_and_a_name_is_not(file: Path) -> None:
    before, folder = keys(file), file.parent / "code"
    assert before[0] != before[1]
    (folder / "other.py").write_text("Y = 3\n", encoding="utf-8")
    assert keys(file) == before
    (folder / "init.py").rename(folder / "renamed.py")
    file.write_text(file.read_text(encoding="utf-8").replace("code/init.py", "code/renamed.py"), encoding="utf-8")
    assert keys(file) == before
    (folder / "helper.py").write_text("X = 3\n", encoding="utf-8")
    assert keys(file)[0] == before[0]
    assert keys(file)[1] != before[1]


def test_the_plan_names_it_as_code_and_says_what_changed(file: Path) -> None:
    study = Study.load(file, file.parent / ".lora")
    (line,) = study.plan().programs
    assert line.startswith("runs: mine of code/init.py (sha256 ")
    assert line.endswith("…, 2 files) to initialize adapters")
    study.apply(study.plan(target=[f"{NAME}/seed=1:train"]))
    (file.parent / "code" / "helper.py").write_text("X = 3\n", encoding="utf-8")
    plan = Study.load(file, file.parent / ".lora").plan()
    reason = next(change.reason for change in plan.work if change.address == f"{NAME}/seed=1:train")
    assert reason.startswith("new: init_lora_weights mine (")
    assert "{" not in reason


WRONG = {
    ("code/init.py", "code/inti.py"): 'there is no file code/inti.py next to the spec; did you mean "init.py"?',
    ('"mine"', '"mien"'): 'code/init.py defines no function mien; did you mean "mine"?',
    ('"code/init.py"', '"../init.py"'): 'should be a Python file next to the spec, such as "init.py"',
    ('"mine" }', '"mine", seed = 1 }'): "unknown setting",
}


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_what_is_wrong_with_it_is_one_located_sentence(file: Path, change: tuple[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    assert change[0] in text
    file.write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        graph_of(file)
    (problem,) = caught.value.problems
    assert WRONG[change] in problem.message
    assert problem.line > 1
    assert problem.setting.startswith("sweep[0].lora.init_lora_weights")


def test_it_is_a_point_of_a_sweep_and_a_setting_of_the_study(file: Path) -> None:
    before = keys(file)[1]
    text = file.read_text(encoding="utf-8").partition("[[sweep]]")[0]
    table = '{ file = "code/init.py", function = "mine" }'
    point = f'[[sweep]]\nname = "x"\nconfigurations = [{{ name = "y", lora = {{ init_lora_weights = {table} }} }}]\n'
    for more in (f"[lora]\ninit_lora_weights = {table}\n", point):
        file.write_text(text + more, encoding="utf-8")
        (runs,) = graph_of(file).replicates.values()
        assert runs[0].train == before


def test_what_cannot_be_combined_with_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace("[[sweep]]", '[quantization]\nquant_method = "hqq"\nnbits = 4\n[[sweep]]'), encoding="utf-8"
    )
    with pytest.raises(
        SpecError, match="a function reads weights that are not quantized, or quantized by bitsandbytes"
    ):
        load(file)
