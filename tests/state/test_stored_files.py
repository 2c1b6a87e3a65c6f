"""A process of its own looks which stored files are not as they were stored; a plan says what it says without one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from state_fixture import finish, write_study

from lorafile import Study
from lorafile.state import State, stored_files
from lorafile.state.stored_files import differing_files


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return finish(write_study(tmp_path))


@pytest.fixture
def in_a_process(monkeypatch: pytest.MonkeyPatch) -> list[set[str] | None]:
    """What such processes told plans of however few configurations."""
    told: list[set[str] | None] = []
    check = sys.modules["lorafile.plan.planner"].check_objects  # type: ignore[attr-defined]

    def checked(plan: object, state: State, differing: Callable[[], set[str] | None]) -> object:
        def asked() -> set[str] | None:
            told.append(differing())
            return told[-1]

        return check(plan, state, asked)

    monkeypatch.setattr("lorafile.plan.planner._MANY", 0)
    monkeypatch.setattr("lorafile.plan.planner.check_objects", checked)
    return told


def files(state: Path) -> list[Path]:
    return sorted((state / "objects").glob("*/*"))


def damage(state: Path) -> set[str]:
    """Remove a file, cut one, append to one, and keep the length of one; return the digests of the first three."""
    gone, cut, longer, same = files(state)[:4]
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    longer.write_bytes(longer.read_bytes() + b"x")
    same.write_bytes(b"?" * same.stat().st_size)
    return {gone.name, cut.name, longer.name}


@pytest.mark.parametrize("slow", [False, True], ids=["one by one", "several at once"])
def test_what_is_missing_or_has_another_length_is_told(
    state: Path, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_files, "_FIRST", 2)
    monkeypatch.setattr(stored_files, "_SLOW", -1.0 if slow else 60.0)
    assert differing_files(str(state / "state.db"), str(state / "objects")) == []
    wrong = damage(state)
    assert set(differing_files(str(state / "state.db"), str(state / "objects"))) == wrong


def test_a_plan_names_what_it_names_without_the_process(
    state: Path, in_a_process: list[set[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.load(state.parent / "study.toml", state)
    assert study.plan().damaged == ()
    wrong = damage(state)
    plan = study.plan()
    assert in_a_process == [set(), wrong]
    assert {one.digest for one in plan.damaged} == wrong
    monkeypatch.setattr("lorafile.plan.planner._MANY", 1000)
    assert study.plan().damaged == plan.damaged


def test_where_no_process_can_tell_the_plan_looks_itself(
    state: Path, in_a_process: list[set[str] | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.load(state.parent / "study.toml", state)
    wrong = damage(state)
    with State.write(state):  # somebody writes: its index has a log
        assert {one.digest for one in study.plan().damaged} == wrong
    for executable in ("", "/bin/false"):
        monkeypatch.setattr(sys, "executable", executable)
        assert {one.digest for one in study.plan().damaged} == wrong
    assert in_a_process == [None] * 3


def test_the_process_ends_with_what_it_was_begun_for(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[str]] = []

    class Slow(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: list[str], **options: object) -> None:
            super().__init__([command[0], "-c", "import time; time.sleep(600)"], **options)  # type: ignore[call-overload]
            begun.append(self)

    monkeypatch.setattr(subprocess, "Popen", Slow)
    with (
        pytest.raises(KeyboardInterrupt),
        stored_files.looking_at_files(state / "state.db", state / "objects"),
    ):
        raise KeyboardInterrupt
    assert begun[0].returncode is not None
