"""Prepare nodes that left the same bytes are one, as long as nothing is lost by it."""

from pathlib import Path

import pytest

from lorafile.state import EQUAL_DATA, Attempt, Node, State, WritableState, ledger

A, B, C = (letter * 64 for letter in "abc")


def prepared(state: WritableState, key: str, content: str, examples: int = 4) -> None:
    file = state.directory / "tokens"
    file.write_text(content, encoding="utf-8")
    attempt = Attempt(key, "prepare", "done", figures={"examples": examples}, study="s", address="data/train:prepare")
    state.record(Node(key, "prepare", 2, {"data": {}}, {}), attempt, {"tokens.safetensors": file})


def trained_on(state: WritableState, key: str) -> None:
    node = Node("t" * 63 + key[0], "train", 1, {}, {"train": key})
    state.record(node, Attempt(node.key, "train", "done", study="s", address="a:train"), {})


def pairs(state: State) -> dict[str, str]:
    """Return key -> the one in whose place it is used."""
    return {new: acceptance.old for new, acceptance in state.acceptances().items()}


def test_the_first_stands_for_those_that_came_out_equal(tmp_path: Path) -> None:
    with State.write(tmp_path / "s") as state:
        for key, content in ((A, "x"), (B, "x"), (C, "y")):
            prepared(state, key, content)
        assert pairs(state) == {B: A}
        assert state.acceptances()[B].is_equal


def test_what_results_were_made_from_stands_for_what_nothing_read(tmp_path: Path) -> None:
    with State.write(tmp_path / "s") as state:
        prepared(state, A, "x")
        prepared(state, B, "x")
        trained_on(state, B)
        assert pairs(state) == {A: B}
        trained_on(state, A)
        assert pairs(state) == {}, "the results of both stay in use"


def test_equal_bytes_of_other_figures_are_two(tmp_path: Path) -> None:
    """What is told of rows that were left out differs, and would not be true of the other."""
    with State.write(tmp_path / "s") as state:
        prepared(state, A, "x")
        prepared(state, B, "x", examples=5)
        assert pairs(state) == {}


def test_what_was_made_again_counts_as_it_is_now(tmp_path: Path) -> None:
    with State.write(tmp_path / "s") as state:
        prepared(state, A, "x")
        prepared(state, B, "x")
        prepared(state, B, "y")
        assert pairs(state) == {}


@pytest.mark.parametrize("again", [False, True])
def test_what_is_recorded_stays_and_can_be_withdrawn(tmp_path: Path, again: bool) -> None:
    with State.write(tmp_path / "s") as state:
        prepared(state, A, "x")
        prepared(state, B, "x")
        ledger.record_equal_data(state)
        ledger.record_equal_data(state)
        assert state.rows("SELECT old, new, reason FROM acceptances") == [(A, B, EQUAL_DATA)]
        prepared(state, C, "x")
        assert pairs(state) == {B: A, C: A}
        if again:
            ledger.withdraw(state, B)
            assert pairs(state) == {C: A}, "nobody decides again what somebody withdrew"


def test_a_removed_preparation_stands_for_nothing(tmp_path: Path) -> None:
    with State.write(tmp_path / "s") as state:
        prepared(state, A, "x")
        prepared(state, B, "x")
        ledger.record_equal_data(state)
        ledger.remove(state, [1], "by hand")
        assert pairs(state) == {}
