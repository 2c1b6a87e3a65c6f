"""Plan and apply together, with real worker processes on a two-layer model."""

import contextlib
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from apply_fixture import RANKS, Watch, children, load, study

from lorafile import Study
from lorafile.apply.applier import Applier
from lorafile.apply.executors.base import ExecutorCallbacks, Group
from lorafile.engine.request import Result
from lorafile.engine.worker.channel import NodeEnd
from lorafile.errors import StalePlan, StateError
from lorafile.plan.plan import Action, Plan
from lorafile.state import Attempt, State


def addresses(plan: Plan, kind: str) -> list[str]:
    return [change.address for change in plan.work if change.kind == kind]


def test_a_study_is_done_once(spec_file: Path) -> None:
    first = study(spec_file)
    assert not (spec_file.parent / ".lora").exists(), "a plan writes nothing"
    applied = first.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    assert load(spec_file).plan().work == []
    assert load(spec_file).apply().attempts == []
    results = load(spec_file).results()
    assert list(results["configuration"]) == ["rank/r=2", "rank/r=2", "rank/r=4", "rank/r=4"]
    assert results["test.log_loss"].notna().all()
    assert list(results["lora.r"]) == [2, 2, 4, 4]
    assert spec_file.with_suffix(".lock").exists()


def test_what_changes_in_the_spec_is_what_is_planned(spec_file: Path) -> None:
    study(spec_file).apply()
    text = spec_file.read_text(encoding="utf-8")

    def planned(changed: str) -> Plan:
        spec_file.write_text(changed, encoding="utf-8")
        return load(spec_file).plan()

    more = planned(text.replace("[2, 4]", "[2, 4, 128]"))
    assert addresses(more, "train") == ["rank/r=128/seed=1:train", "rank/r=128/seed=2:train"]
    train = next(change for change in more.work if change.kind == "train")
    assert "new: r 4 → 128, compared with rank/r=4" in train.reason
    assert all("rank/r=128" in change.address for change in more.work)
    renamed = planned("# a comment\n" + text.replace('name = "rank"', 'name = "ranks"').replace("[2, 4]", "[4, 2]"))
    assert renamed.work == []
    assert not [change for change in renamed.changes if change.action is Action.UNDECLARED]
    metric = planned(text.replace('["log_loss"]', '["log_loss", "token_accuracy"]'))
    assert {change.kind for change in metric.work} == {"score"}
    answers = planned(text.replace('["log_loss"]', '["log_loss", "exact_match"]'))
    assert {change.kind for change in answers.work} == {"predict", "score"}
    assert all("generation" in address for address in addresses(answers, "predict"))
    fewer = planned(text.replace("[2, 4]", "[2]"))
    gone = [change for change in fewer.changes if change.action is Action.UNDECLARED]
    assert fewer.work == []
    assert gone
    assert all("rank/r=4" in change.address for change in gone)


def test_results_carry_the_digests_of_what_they_were_computed_from(spec_file: Path) -> None:
    first = study(spec_file)
    applied = first.apply()
    by_key = {attempt.key: attempt for attempt in applied.attempts}
    graph = first.plan().graph
    for attempt in applied.attempts:
        for role, key in graph.nodes[attempt.key].inputs.items():
            assert attempt.reads[role] == by_key[key].outputs


def test_a_lost_object_is_made_again_only_for_who_reads_it(spec_file: Path) -> None:
    applied = study(spec_file).apply()
    train = next(attempt for attempt in applied.attempts if attempt.kind == "train")
    state = State.read(spec_file.parent / ".lora")
    state.objects.path(train.outputs["adapter_model.safetensors"]).unlink()
    assert load(spec_file).plan().work == []
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace('["log_loss"]', '["log_loss", "exact_match"]'), encoding="utf-8")
    plan = load(spec_file).plan()
    assert addresses(plan, "train") == [train.address]
    again = load(spec_file).apply()
    remade = next(attempt for attempt in again.attempts if attempt.kind == "train")
    assert remade.outputs == train.outputs, "the same key gives the same bytes on one machine"
    assert load(spec_file).plan().work == []


def test_a_worker_that_is_killed_costs_its_node_and_nothing_else(spec_file: Path) -> None:
    slow = study(spec_file, RANKS.replace("[2, 4]", "[2]") + "train.max_steps = [300]\n")

    def kill() -> None:
        """Kill the worker: the youngest grandchild; the fork server stands between it and us."""
        grandchildren = [pid for child in children(os.getpid()) for pid in children(child)]
        os.kill(max(grandchildren), signal.SIGKILL)

    watch = Watch("train", kill)
    applied = slow.apply(workers=1, pack="off", watchers=[watch])
    outcomes = [(a.address, a.outcome) for a in applied.attempts if a.kind == "train"]
    assert ("rank/r=2,max_steps=300/seed=1:train", "interrupted") in outcomes
    assert sorted(address for address, outcome in outcomes if outcome == "done") == [
        "rank/r=2,max_steps=300/seed=1:train",
        "rank/r=2,max_steps=300/seed=2:train",
    ]
    assert load(spec_file).plan().work == []


@pytest.mark.parametrize(("presses", "trained"), [(1, 1), (2, 0)])
def test_ctrl_c_finishes_what_runs_and_the_next_apply_goes_on(spec_file: Path, presses: int, trained: int) -> None:
    slow = study(spec_file, RANKS + "train.max_steps = [300]\n")

    def press() -> None:
        for _ in range(presses):
            os.kill(os.getpid(), signal.SIGINT)

    applied = slow.apply(workers=1, pack="off", watchers=[Watch("train", press)])
    assert applied.interrupted
    trains = [attempt for attempt in applied.attempts if attempt.kind == "train"]
    assert len([attempt for attempt in trains if attempt.outcome == "done"]) == trained
    if presses == 2:
        assert [attempt.outcome for attempt in trains] == ["interrupted"]
        retried = [change for change in load(spec_file).plan().work if change.action is Action.RETRY]
        assert "interrupted: Stopped on request; resumes from step " in retried[0].reason
    rest = load(spec_file).apply()
    assert sum(attempt.kind == "train" and attempt.outcome == "done" for attempt in rest.attempts) == 4 - trained
    assert load(spec_file).plan().work == []


def test_divergence_is_a_result_and_the_rest_goes_on(spec_file: Path) -> None:
    wild = study(spec_file, '[[sweep]]\nname = "rate"\nmethod = ["full"]\ntrain.learning_rate = [1e-3, 1e30]\n')
    applied = wild.apply()
    outcomes = {attempt.address: attempt.outcome for attempt in applied.attempts if attempt.kind == "train"}
    assert outcomes["rate/method=full,learning_rate=0.001/seed=1:train"] == "done"
    assert outcomes["rate/method=full,learning_rate=1e+30/seed=1:train"] == "diverged"
    plan = load(spec_file).plan()
    assert plan.work == []
    blocked = [change for change in plan.changes if change.action is Action.BLOCKED]
    assert {change.reason.split(":")[0] for change in blocked} == {
        "rate/method=full,learning_rate=1e+30/seed=1",
        "rate/method=full,learning_rate=1e+30/seed=2",
    }
    outcome = load(spec_file).results().set_index(["configuration", "seed"])["outcome"]
    assert outcome["rate/method=full,learning_rate=1e+30", 1] == "diverged"


def test_a_failed_node_is_told_and_tried_again(spec_file: Path) -> None:
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace("max_length = 32", "max_length = 5"), encoding="utf-8")
    applied = study(spec_file).apply()
    failed = applied.with_outcome("failed")
    assert {attempt.kind for attempt in failed} == {"prepare"}
    assert "tokens, more than 5. Raise data.max_length" in failed[0].message
    assert not [attempt for attempt in applied.attempts if attempt.kind == "train"], "nothing was paid for"
    spec_file.write_text(
        spec_file.read_text(encoding="utf-8").replace("max_length = 5", "max_length = 32"), encoding="utf-8"
    )
    assert {attempt.outcome for attempt in load(spec_file).apply().attempts} == {"done"}


def test_what_is_said_in_one_turn_is_kept_although_a_part_of_it_cannot_be(spec_file: Path, tmp_path: Path) -> None:
    """It is one transaction: a file that is gone takes its own result with it, and no other's."""
    plan = load(spec_file).plan()
    prepares = [change for change in plan.work if change.kind == "prepare"]
    file = tmp_path / "tokens.safetensors"
    file.write_bytes(b"tokens")

    class Two:
        def run(self, groups: list[Group], callbacks: ExecutorCallbacks) -> None:
            whole, torn = (Result(files=[name]) for name in (file.name, "gone"))
            about = zip(prepares, (torn, whole, whole), strict=True)
            callbacks.record([NodeEnd(change.key, result, str(tmp_path)) for change, result in about])

    with State.write(tmp_path / "other") as state, pytest.raises(FileNotFoundError, match="gone"):
        Applier(plan, state, Two(), []).run()
    kept = State.read(tmp_path / "other").latest()
    assert set(kept) == {change.key for change in prepares[1:]}


def test_two_applies_at_once_never_do_one_node_twice(spec_file: Path) -> None:
    first = study(spec_file)
    approved = load(spec_file).plan()
    done: list[Attempt] = []
    second: list[Attempt] = []

    def other() -> None:
        second.extend(load(spec_file).apply(approved, lock_timeout=120).attempts)

    thread = threading.Thread(target=other)
    done.extend(first.apply(watchers=[Watch("train", thread.start)]).attempts)
    thread.join()
    assert done
    assert second == []


def test_another_device_s_result_is_drift_and_is_kept(spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(spec_file).apply()
    monkeypatch.setattr("lorafile.plan.clusters.machines.environments", lambda: [{**_environment(), "peft": "99.0"}])
    plan = load(spec_file).plan()
    drifted = [change for change in plan.changes if change.action is Action.DRIFT]
    assert plan.work == []
    assert {change.kind for change in drifted} == {"train", "predict"}
    assert "peft 0 is now 99" in drifted[0].reason


def test_a_machine_without_torch_sees_no_drift(spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(spec_file).apply()
    monkeypatch.setattr(
        "lorafile.plan.clusters.machines.environments", lambda: [{**_environment(), "torch": None, "peft": None}]
    )
    assert {change.action for change in load(spec_file).plan().changes} == {Action.REUSE}


def _environment() -> dict[str, Any]:
    from lorafile.environment import environment

    return environment()


def test_an_apply_in_a_thread_takes_no_signals(spec_file: Path) -> None:
    applied = []
    thread = threading.Thread(target=lambda: applied.append(study(spec_file, "").apply()))
    with contextlib.suppress(KeyboardInterrupt):
        thread.start()
        thread.join()
    assert {attempt.outcome for attempt in applied[0].attempts} == {"done"}


def test_a_disk_that_fills_up_is_a_sentence_and_keeps_what_had_finished(spec_file: Path) -> None:
    mount = spec_file.parent / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        study(spec_file, '[[sweep]]\nname = "method"\nmethod = ["lora", "full"]\n')
        small = Study.load(spec_file, mount / "state")
        try:
            applied = small.apply(workers=1)
            told = [attempt.message for attempt in applied.with_outcome("failed")]
        except StateError as error:
            told = [str(error)]
        assert told
        assert all("is full" in sentence or "No space left on the disk" in sentence for sentence in told), told
        finished = [change for change in small.plan().changes if change.action is Action.REUSE]
        assert {change.kind for change in finished} >= {"prepare", "train"}
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def test_predictions_that_ran_out_of_memory_are_tried_again_with_a_smaller_batch(spec_file: Path) -> None:
    from lorafile.state import Node

    study(spec_file, "").apply()
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace('["log_loss"]', '["log_loss", "exact_match"]'), encoding="utf-8")
    graph = load(spec_file).plan().graph
    nodes = [n for n in graph.nodes.values() if n.kind == "predict" and n.settings["task"]["output"] == "generation"]
    with State.write(spec_file.parent / ".lora") as state:
        for node in nodes:
            lost = Attempt(node.key, "predict", "out-of-memory", figures={"per_device_eval_batch_size": 16})
            state.record(Node(node.key, node.kind, 1, node.settings, node.inputs), lost, {})
    assert not addresses(load(spec_file).plan(), "predict")
    assert list(load(spec_file).results()["outcome"]) == ["out-of-memory"] * 2
    smaller = text.replace('["log_loss"]', '["log_loss", "exact_match"]\nper_device_eval_batch_size = 2')
    spec_file.write_text(smaller, encoding="utf-8")
    assert len(addresses(load(spec_file).plan(), "predict")) == 4


def test_data_that_change_after_the_plan_are_refused(spec_file: Path, rows_file: Path) -> None:
    own = spec_file.parent / "rows.jsonl"
    own.write_bytes(rows_file.read_bytes())
    text = spec_file.read_text(encoding="utf-8").replace(str(rows_file), "rows.jsonl")
    spec_file.write_text(text, encoding="utf-8")
    approved = load(spec_file).plan()
    with own.open("a", encoding="utf-8") as stream:
        stream.write('{"prompt": "new", "completion": "row"}\n')
    with pytest.raises(StalePlan, match="changed after the plan"):
        load(spec_file).apply(approved)
