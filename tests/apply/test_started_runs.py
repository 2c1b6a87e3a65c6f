"""Runs that start from other runs, planned and applied: their order, what blocks them, and what they follow."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from apply_fixture import load, study  # noqa: E402
from command_fixture import lora  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.plan.plan import Action, Plan  # noqa: E402
from lorafile.state import Attempt, State  # noqa: E402

CHAIN = """
[[sweep]]
name = "task"
configurations = [
  { name = "second", train = { from = "task/first", learning_rate = 1e-3 } },
  { name = "first" },
  { name = "third", train = { from = "task/second" } },
]
"""
TRAINS = [f"task/{name}/seed=1:train" for name in ("first", "second", "third")]


@pytest.fixture
def chain(spec_file: Path) -> Study:
    """Three configurations, each started from the one before, under one seed."""
    spec_file.write_text(spec_file.read_text(encoding="utf-8").replace("[1, 2]", "[1]"), encoding="utf-8")
    return study(spec_file, CHAIN)


def trains(attempts: list[Attempt]) -> list[str]:
    return [attempt.address for attempt in attempts if attempt.kind == "train"]


def reasons(plan: Plan) -> dict[str, str]:
    return {change.address: change.reason for change in plan.changes}


def adapter(study: Study, address: str) -> Path:
    plan = study.plan()
    attempt = next(attempt for attempt in plan.results.values() if attempt.address == address)
    return State.read(study.state).objects.path(attempt.outputs["adapter_model.safetensors"])


def test_each_run_follows_the_one_that_it_starts_from(chain: Study) -> None:
    plan = chain.plan()
    assert reasons(plan)[TRAINS[1]] == f"new; starts from {TRAINS[0]}"
    applied = chain.apply(workers=2)
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    assert trains(applied.attempts) == TRAINS
    assert chain.plan().work == []
    reads = {attempt.address: attempt.reads for attempt in applied.attempts}
    outputs = {attempt.address: attempt.outputs for attempt in applied.attempts}
    assert reads[TRAINS[2]]["start"] == outputs[TRAINS[1]]
    first, second = (load_file(adapter(chain, address)) for address in TRAINS[:2])
    distance = sum(float((second[name] - first[name]).square().sum()) for name in first) ** 0.5
    assert 0 < distance < sum(float(tensor.square().sum()) for tensor in first.values()) ** 0.5
    assert list(chain.results()["train.from"].fillna("")) == ["task/first", "", "task/second"]


def test_a_target_brings_its_ancestors(chain: Study) -> None:
    plan = chain.plan(target=["task/third"])
    assert [change.address for change in plan.work if change.kind == "train"] == TRAINS
    assert not any(change.kind == "predict" and "third" not in change.address for change in plan.work)


def test_a_run_that_diverged_blocks_what_starts_from_it(chain: Study) -> None:
    text = chain.spec.file.read_text(encoding="utf-8")
    wild = text.replace('name = "first" }', 'name = "first", train = { learning_rate = 1e30 } }')
    chain.spec.file.write_text(wild, encoding="utf-8")
    applied = load(chain.spec.file).apply()
    assert {attempt.address: attempt.outcome for attempt in applied.attempts if attempt.kind == "train"} == {
        TRAINS[0]: "diverged"
    }
    plan = load(chain.spec.file).plan()
    assert plan.work == []
    blocked = {change.address: change.reason for change in plan.changes if change.action is Action.BLOCKED}
    assert blocked[TRAINS[1]] == blocked[TRAINS[2]] == f"{TRAINS[0]} diverged"
    runs = load(chain.spec.file).results().set_index("configuration")
    assert list(runs["outcome"]) == ["missing", "diverged", "missing"]
    assert runs["message"]["task/second"] == f"{TRAINS[0]} diverged"


def test_other_bytes_of_a_run_are_followed_by_the_whole_chain(chain: Study) -> None:
    chain.apply()
    with State.write(chain.state) as state:  # as another machine would have left it
        plan = chain.plan()
        change = next(change for change in plan.changes if change.address == TRAINS[0])
        attempt, node = plan.results[change.key], state.node(change.key)
        assert node is not None
        other = adapter(chain, TRAINS[2])
        files = {each: state.objects.path(digest) for each, digest in attempt.outputs.items()}
        state.record(node, attempt, files | {"adapter_model.safetensors": other})
    assert reasons(chain.plan())[TRAINS[1]] == f"{TRAINS[0]} was recreated with different bytes"
    before = adapter(chain, TRAINS[2]).read_bytes()
    assert trains(chain.apply().attempts) == TRAINS[1:]
    assert adapter(chain, TRAINS[2]).read_bytes() != before
    assert chain.plan().work == []
    assert trains(chain.apply(chain.plan(replace=[TRAINS[0]])).attempts) == TRAINS, "its own bytes again, then the rest"
    assert adapter(chain, TRAINS[2]).read_bytes() == before


def test_what_is_said_of_it_on_the_command_line(chain: Study) -> None:
    file = chain.spec.file
    shown = lora("plan", file.name, cwd=file.parent)
    assert shown.returncode == 0, shown.stderr
    assert "task/second  (1 train, 2 predict, 2 score)  new; starts from task/first/seed=1:train" in shown.stdout
    assert "r=16 alpha=32 from task/first" in shown.stdout
    other = file.with_name("other.toml")
    text = file.read_text(encoding="utf-8")
    other.write_text(text.replace('"first" }', '"first", train = { learning_rate = 3e-3 } }'), encoding="utf-8")
    diff = lora("diff", file.name, other.name, cwd=file.parent)
    assert "other adapter to start from" in diff.stdout
    wrong = file.with_name("wrong.toml")
    wrong.write_text(text.replace('from = "task/first"', 'from = "task/frist"'), encoding="utf-8")
    refused = lora("plan", wrong.name, cwd=file.parent)
    assert refused.returncode == 3
    line = text.splitlines().index('  { name = "second", train = { from = "task/first", learning_rate = 1e-3 } },') + 1
    assert f"wrong.toml:{line}:" in refused.stderr
    assert 'did you mean "task/first"?' in refused.stderr
