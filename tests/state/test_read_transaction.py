"""A reader sees one moment of a state, whatever a writer records while it reads."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from state_fixture import finish, write_study

from lorafile import Study
from lorafile.errors import StateError
from lorafile.plan.plan import Plan
from lorafile.state import Attempt, Node, State, ledger

NODE = Node("k" * 64, "train", 1, {"adapter": {"r": 8}}, {})
ATTEMPT = Attempt(NODE.key, "train", "done")


def attempts(state: State) -> int:
    return len(state.latest().get(NODE.key, []))


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A state with one attempt, cleanly closed."""
    with State.write(tmp_path) as state:
        state.record(NODE, ATTEMPT, {})
    return tmp_path


def test_beside_a_writer(one: Path) -> None:
    with State.write(one) as writer:

        def read(state: State) -> list[int]:
            first = attempts(state)
            writer.record(NODE, ATTEMPT, {})
            return [first, attempts(state), State.snapshot(one, attempts)]

        assert State.snapshot(one, read) == [1, 1, 1]
        assert attempts(State.read(one)) == 2, "the writer was not held up"


WRITER = """
import sys
from pathlib import Path
from test_read_transaction import ATTEMPT, NODE
from lorafile.state import State
with State.write(Path(sys.argv[1])) as state:
    state.record(NODE, ATTEMPT, {})
    print("open", flush=True)
    sys.stdin.readline()
    for _ in range(100):
        state.record(NODE, ATTEMPT, {})
print("closed", flush=True)
"""


def test_beside_the_writer_of_another_process_that_ends_meanwhile(one: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, str(one)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        assert writer.stdout.readline() == "open\n"

        def read(state: State) -> list[Any]:
            first = attempts(state)
            assert attempts(State.read(one)) == 2, "a second connection of this process came and went"
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "closed\n"
            return [first, attempts(state), state.query("PRAGMA integrity_check")]

        assert State.snapshot(one, read) == [2, 2, [[("ok",)]]]
    assert attempts(State.read(one)) == 102


def test_before_a_writer_who_begins_meanwhile(one: Path) -> None:
    with contextlib.ExitStack() as later:

        def read(state: State) -> list[int]:
            first = attempts(state)
            later.enter_context(State.write(one)).record(NODE, ATTEMPT, {})
            return [first, attempts(state)]

        assert State.snapshot(one, read) == [1, 1]
        assert attempts(State.read(one)) == 2


def test_after_a_writer_who_came_and_went_all_is_read_again(one: Path) -> None:
    seen = []

    def read(state: State) -> list[int]:
        seen.append(attempts(state))
        if len(seen) == 1:
            with State.write(one) as writer:
                writer.record(NODE, ATTEMPT, {})
        return [seen[-1], attempts(state)]

    assert State.snapshot(one, read) == [2, 2]
    assert seen == [1, 2]


def test_before_there_was_a_state(tmp_path: Path) -> None:
    def read(state: State) -> list[int]:
        first = attempts(state)
        with State.write(tmp_path / "new") as writer:
            writer.record(NODE, ATTEMPT, {})
        return [first, attempts(state)]

    assert State.snapshot(tmp_path / "new", read) == [0, 0]


def test_a_report_is_of_the_moment_of_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is forgotten between the plan and the tables that are made of it."""
    study = Study.load(write_study(tmp_path))
    study.state = finish(study.spec.file)
    planned = study.plan
    with State.write(study.state) as writer:
        numbers = [number for (number,) in writer.rows("SELECT id FROM attempts")]

        def then_forgotten() -> Plan:
            plan = planned()
            ledger.remove(writer, numbers, "meanwhile")
            return plan

        monkeypatch.setattr(study, "plan", then_forgotten)
        assert set(study.gather().runs["outcome"]) == {"done"}
        assert set(study.gather().runs["outcome"]) != {"done"}, "the next one sees it"


def test_an_object_that_is_collected_under_a_reader_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no lines")
    with State.write(tmp_path / "s") as state:
        digest = state.record(NODE, ATTEMPT, {"curve.jsonl.gz": tmp_path / "file"}).outputs["curve.jsonl.gz"]
        ledger.collect(state, {digest: 8})
        with pytest.raises(StateError, match=f"{digest[:12]}… is missing .* recreates it"):
            list(state.objects.rows(digest))
