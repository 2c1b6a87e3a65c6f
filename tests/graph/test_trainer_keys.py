"""Which changes of a program that trains are changes of its runs' keys, and what a spec with one is told."""

import shutil
from pathlib import Path

import pytest

from lorafile.errors import SpecError
from lorafile.graph.build import build
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import resolve
from lorafile.specs import load

MAIN = "import helper\nfrom package.part import VALUE\n"
SPEC = """
[study]
name = "s"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
max_length = 32
[trainer.mine]
command = ["python", "train.py"]
files = ["b.json", "a.json"]
requirements = "pins.lock"
options = { beta = 0.1 }
data = { pairs = "pairs.jsonl" }
[profile]
enabled = false
[[sweep]]
name = "t"
train.trainer = ["builtin", "mine"]
"""
FILES = {
    "train.py": MAIN,
    "helper.py": "X = 1\n",
    "package/__init__.py": "",
    "package/part.py": "VALUE = 1\n",
    "unrelated.py": "Y = 1\n",
    "a.json": "{}",
    "b.json": "{}",
    "pins.lock": "trl==1.16.0\n",
    "pairs.jsonl": '{"prompt": "a"}\n',
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (folder / "study.toml").write_text(SPEC, encoding="utf-8")
    return folder


def graph_of(folder: Path) -> Graph:
    spec = load(folder / "study.toml")
    return build(spec, resolve(spec, None)[0])


def trains(folder: Path) -> dict[str, str]:
    """Return configuration -> key of its first run."""
    return {name: str(runs[0].train) for name, runs in graph_of(folder).replicates.items()}


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


CHANGES = {
    "the script": ("train.py", MAIN, MAIN + "# more\n"),
    "a module that it imports": ("helper.py", "X = 1", "X = 2"),
    "a module of a package that it imports": ("package/part.py", "VALUE = 1", "VALUE = 2"),
    "the package itself": ("package/__init__.py", "", "Z = 1\n"),
    "a listed file": ("a.json", "{}", "[]"),
    "a pin": ("pins.lock", "1.16.0", "1.17.0"),
    "its data": ("pairs.jsonl", "a", "b"),
    "an option": ("study.toml", "beta = 0.1", "beta = 0.2"),
    "an argument": ("study.toml", '"train.py"]', '"train.py", "--fast"]'),
    "the objective": ("study.toml", "[profile]", 'objective = "preference"\n[profile]'),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_of_what_a_program_does_changes_its_runs_and_no_others(study: Path, what: str) -> None:
    before = trains(study)
    name, old, new = CHANGES[what]
    replace(study / name, old, new)
    after = trains(study)
    assert after["t/trainer=mine"] != before["t/trainer=mine"]
    assert after["t/trainer=builtin"] == before["t/trainer=builtin"]


SAME = {
    "another module": ("unrelated.py", "Y = 1", "Y = 2"),
    "files in another order": ("study.toml", '["b.json", "a.json"]', '["a.json", "b.json"]'),
    "comments of the pins": ("pins.lock", "trl", "# remark\n--index-url https://example.org\ntrl"),
    "hashes of the pins": ("pins.lock", "1.16.0\n", "1.16.0 \\\n    --hash=sha256:00\n"),
    "the interpreter": ("study.toml", "[profile]", 'python = "/opt/python"\n[profile]'),
    "passed variables": ("study.toml", "[profile]", 'environment = ["CUDA_HOME"]\nstop_seconds = 5\n[profile]'),
}


@pytest.mark.parametrize("what", SAME)
def test_what_changes_nothing_that_is_trained_changes_no_key(study: Path, what: str) -> None:
    before = trains(study)
    name, old, new = SAME[what]
    replace(study / name, old, new)
    assert trains(study) == before


def test_neither_a_programs_name_nor_its_checkout_is_in_a_key(study: Path, tmp_path: Path) -> None:
    before = trains(study)
    elsewhere = tmp_path / "elsewhere" / "deep"
    shutil.copytree(study, elsewhere)
    replace(elsewhere / "study.toml", "[trainer.mine]", "[trainer.yours]")
    replace(elsewhere / "study.toml", '"mine"', '"yours"')
    after = trains(elsewhere)
    assert after["t/trainer=yours"] == before["t/trainer=mine"]


def test_a_study_without_trainers_has_the_keys_that_it_had(study: Path) -> None:
    before = trains(study)
    replace(study / "study.toml", 'train.trainer = ["builtin", "mine"]', "lora.r = [16]")
    text = (study / "study.toml").read_text(encoding="utf-8")
    start, end = text.index("[trainer.mine]"), text.index("[profile]")
    (study / "study.toml").write_text(text[:start] + text[end:], encoding="utf-8")
    assert trains(study)["t/r=16"] == before["t/trainer=builtin"]


def test_an_option_can_be_swept(study: Path) -> None:
    replace(study / "study.toml", "train.trainer = [", "trainer.mine.options.beta = [0.1, 0.3]\ntrain.trainer = [")
    graph = graph_of(study)
    sections = {name: graph.sections[name].get("trainer", {}).get("options") for name in graph.replicates}
    assert sections == {
        "t/beta=0.1,trainer=builtin": None,
        "t/beta=0.1,trainer=mine": {"beta": 0.1},
        "t/beta=0.3,trainer=mine": {"beta": 0.3},
    }


def test_predictions_of_a_program_read_its_adapter_and_nothing_else_of_it(study: Path) -> None:
    graph = graph_of(study)
    for name, runs in graph.replicates.items():
        for key in runs[0].predict.values():
            assert "trainer" not in graph.nodes[key].settings, name


MISTAKES = {
    ("study.toml", '"mine"]\n', '"mnie"]\n'): (
        '20:29: sweep[0].train.trainer[1]: there is no [trainer.mnie]; did you mean "mine"?'
    ),
    ("study.toml", '["python", "train.py"]', '"python train.py"'): (
        '11:1: trainer.mine.command: should be a list of words such as ["python", "train.py"], because no shell is '
        'involved, not "python train.py"'
    ),
    ("study.toml", '"train.py"]', '"trian.py"]'): (
        '11:1: trainer.mine.command: there is no file trian.py next to the spec; did you mean "train.py"?'
    ),
    ("study.toml", '["python", "train.py"]', '["python", "-m", "train"]'): (
        "11:1: trainer.mine.command: names no file next to the spec, so a change of the program could not be seen"
    ),
    ("study.toml", '"a.json"', '"c.json"'): "12:20: trainer.mine.files[1]: there is no file c.json next to the spec",
    ("study.toml", '"a.json"', '"../c.json"'): "12:20: trainer.mine.files[1]: should be a file next to the spec",
    ("study.toml", "beta = 0.1", "day = 2026-12-01"): (
        "14:13: trainer.mine.options.day: is a date or time, which JSON does not have; write it as text"
    ),
    ("study.toml", '"pairs.jsonl"', '"pairs.csv"'): (
        "trainer.mine.data.pairs: pairs.csv should be a .jsonl file, whose rows can be compared with the held-out ones"
    ),
    ("pins.lock", "==1.16.0", ">=1"): (
        "13:1: trainer.mine.requirements: pins.lock, line 1: 'trl>=1' does not pin one version; write name==version"
    ),
    ("train.py", MAIN, "import importlib\nimportlib.import_module(input())\n"): (
        "train.py:2 imports a module by a name that is computed when it runs"
    ),
    ("study.toml", "[profile]", "processes = 2\n[profile]"): "16:1: trainer.mine.processes: only 1 is supported",
}


@pytest.mark.parametrize(("change", "told"), MISTAKES.items())
def test_mistakes_are_told_where_they_stand(study: Path, change: tuple[str, str, str], told: str) -> None:
    name, old, new = change
    replace(study / name, old, new)
    with pytest.raises(SpecError) as caught:
        graph_of(study)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('method = ["full"]', 'a program can train adapters, and method = "full" is trained by the built-in loop only'),
        (
            'lora.init_lora_weights = ["pissa"]',
            'cannot start from init_lora_weights = "pissa", which rewrites the base',
        ),
    ],
)
def test_what_a_program_cannot_train_is_refused(study: Path, line: str, told: str) -> None:
    replace(study / "study.toml", 'train.trainer = ["builtin", "mine"]', f'train.trainer = ["mine"]\n{line}')
    with pytest.raises(SpecError) as caught:
        graph_of(study)
    assert told in str(caught.value)
