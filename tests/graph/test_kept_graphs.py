"""The graph of a large study is kept: it is the one that would be built, and never that of another study."""

import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from lorafile import specs
from lorafile.graph import build as building
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import Lock, resolve

SPEC = """
[study]
name = "kept"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[evaluate]
metrics = ["exact_match", "log_loss"]
[truncate]
ranks = [1, 2]
[[sweep]]
name = "rank"
lora.r = [4, 8]
[[sweep]]
name = "baselines"
method = ["none", "full"]
"""
STUDY = """
study.name = "files"
study.seeds = [1]
model.path = "{model}"
data.path = "rows.jsonl"
data.max_length = 32
data.split = {{ train = 16, validation = 6, test = 6 }}
train.max_steps = 3
evaluate.max_new_tokens = 3
profile.enabled = false
"""
METRIC = "NEEDS = 'generation'\nHIGHER_IS_BETTER = True\ndef score(examples):\n    return [1.0 for _ in examples]\n"
INIT = "def mine(name, A, B, weight, generator):\n    return A, B\n"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
TASK = "task: mine\ndataset_path: x\noutput_type: generate_until\n"
FILES = {  # settings that name a file, its name, and what it says before something is added
    "metric": ('evaluate.metrics = ["own.py"]', "own.py", METRIC),
    "prompts": ('evaluate.prompts.path = "prompts.txt"', "prompts.txt", "What is one?"),
    "template": ('data.chat_template = "chat.jinja"', "chat.jinja", TEMPLATE),
    "trainer": ('train.trainer = "own"\ntrainer.own.command = ["python", "own.py"]', "own.py", "A = 1\n"),
    "init": ('lora.init_lora_weights = { file = "own.py", function = "mine" }', "own.py", INIT),
    "task": ('evaluate.lm_eval_tasks = ["mine"]\nevaluate.lm_eval_include_path = "tasks"', "tasks/mine.yaml", TASK),
}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of configurations of each graph that was built, and not read."""
    counts: list[int] = []
    fill = building._filled

    def filled(graph: Graph) -> Graph:
        counts.append(len(graph.spec.configurations))
        return fill(graph)

    monkeypatch.setattr(building, "_filled", filled)
    return counts


def graph(text: str, lock: Lock | None = None) -> Graph:
    spec = specs.parse(text, Path("study.toml"))
    return building.build(spec, lock or resolve(spec, None)[0])


def test_a_graph_that_was_kept_is_the_one_that_was_built(built: list[int]) -> None:
    text = f"# {sys._getframe().f_code.co_name}\n{SPEC}"
    first, second = graph(text), graph(text)
    assert built == [4]
    for field in fields(Graph):
        assert getattr(first, field.name) == getattr(second, field.name), field.name
    assert list(first.nodes) == list(second.nodes), "whole seeds come first, so that a study may be cut short"
    assert {type(node) for node in second.nodes.values()} == {type(node) for node in first.nodes.values()}


@pytest.mark.parametrize(
    "change",
    [
        lambda spec, lock: (replace(spec, file=Path("other.toml")), lock),
        lambda spec, lock: (spec.with_configurations(spec.configurations[:2]), lock),
        lambda spec, lock: (spec, replace(lock, as_written=True)),
        lambda spec, lock: (spec, replace(lock, equal={"a" * 64: "b" * 64})),
        lambda spec, lock: (
            spec,
            replace(lock, models={name: replace(model, weights="c" * 64) for name, model in lock.models.items()}),
        ),
        lambda spec, lock: (specs.parse(spec.text.replace("[4, 8]", "[4, 9]"), spec.file), lock),
    ],
    ids=["replaced", "configurations", "as written", "equal", "model", "spec"],
)
def test_whatever_may_differ_is_built(
    built: list[int], change: Callable[[specs.Spec, Lock], tuple[specs.Spec, Lock]], request: pytest.FixtureRequest
) -> None:
    spec = specs.parse(f"# {request.node.name}\n{SPEC}", Path("study.toml"))
    lock = resolve(spec, None)[0]
    building.build(spec, lock)
    building.build(*change(spec, lock))
    assert len(built) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_study_that_names_a_file_of_its_own_is_built_each_time(
    built: list[int], name: str, tmp_path: Path, tiny_model: Path
) -> None:
    """What the file says is in a key, and only the file tells."""
    settings, file, content = FILES[name]
    rows = [[{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": f"A{n}"}] for n in range(40)]
    lines = "".join(json.dumps({"messages": row}) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "study.toml").write_text(STUDY.format(model=tiny_model) + settings, encoding="utf-8")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    keys = []
    for more in ("", "# more\n"):
        (tmp_path / file).write_text(content + more, encoding="utf-8")
        spec = specs.load(tmp_path / "study.toml")
        keys.append(set(building.build(spec, resolve(spec, None)[0]).nodes))
    assert keys[0] != keys[1]
    assert len(built) == 2
