"""The store: what is recorded stays, what is damaged is named, and only one process writes."""

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lorafile.errors import StateError
from lorafile.files.jsonl import write_lines
from lorafile.state import Attempt, Node, State, ledger
from lorafile.state.index_file import write_checksum
from lorafile.state.transfer.exporter import TABLES, export_bundle, write_tables

NODE = Node("k" * 64, "train", 1, {"adapter": {"r": 8}}, {"train": "p" * 64})


def attempt(outcome: str = "done", **values: object) -> Attempt:
    return Attempt(NODE.key, "train", outcome, environment={"torch": "2"}, study="s", address="a:train", **values)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "weights"
    file.write_bytes(b"some weights")
    return file


def test_what_is_recorded_can_be_read_again(tmp_path: Path, file: Path) -> None:
    with State.write(tmp_path / "s") as state:
        state.record(NODE, attempt("failed", message="no"), {})
        state.record(NODE, attempt(figures={"loss": 0.5}, reads={"train": {"x": "d"}}), {"weights": file})
    state = State.read(tmp_path / "s")
    first, second = state.latest()[NODE.key]
    assert (first.outcome, first.message) == ("failed", "no"), "an attempt is never overwritten"
    assert second.figures == {"loss": 0.5}
    assert second.reads == {"train": {"x": "d"}}
    assert second.environment == {"torch": "2"}
    assert state.objects.read(second.outputs["weights"]) == b"some weights"
    assert state.finished("train") == [(NODE, "a:train")]


def test_reading_an_absent_state_writes_nothing(tmp_path: Path) -> None:
    assert State.read(tmp_path / "none").latest() == {}
    assert not (tmp_path / "none").exists()


def test_a_clean_close_leaves_one_file_that_opens_on_read_only_media(tmp_path: Path) -> None:
    with State.write(tmp_path / "s") as state:
        state.record(NODE, attempt(), {})
    assert not (tmp_path / "s" / "state.db-wal").exists()
    before = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert State.read(tmp_path / "s").latest()
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == before


def test_the_second_writer_is_told_who_holds_the_state(tmp_path: Path) -> None:
    with State.write(tmp_path / "s"):
        with (
            pytest.raises(StateError, match=rf"in use by .* on .* since 20.* \(process {os.getpid()}: "),
            State.write(tmp_path / "s"),
        ):
            pass
        assert State.read(tmp_path / "s").latest() == {}, "readers never wait"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom lorafile.state import State\n"
        "with State.write(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code, tmp_path / "s"]).returncode == -9
    with State.write(tmp_path / "s") as state:
        state.record(NODE, attempt(), {})


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    with State.write(tmp_path / "s"):
        pass
    database = tmp_path / "s" / "state.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    write_checksum(tmp_path / "s")
    before = database.read_bytes()
    for opened in (lambda: State.read(tmp_path / "s"), lambda: State.write(tmp_path / "s").__enter__()):
        with pytest.raises(StateError, match=r"newer lorafile .schema 99"):
            opened()
    assert database.read_bytes() == before


def test_a_damaged_index_is_named(tmp_path: Path) -> None:
    with State.write(tmp_path / "s"):
        pass
    (tmp_path / "s" / "state.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StateError, match="cannot be read"):
        State.read(tmp_path / "s")


def test_damaged_bytes_are_never_served(tmp_path: Path, file: Path) -> None:
    with State.write(tmp_path / "s") as state:
        digest = state.record(NODE, attempt(), {"weights": file}).outputs["weights"]
    state = State.read(tmp_path / "s")
    state.objects.path(digest).write_bytes(b"some weighty")
    with pytest.raises(StateError, match="damaged"):
        state.objects.read(digest)
    state.objects.path(digest).unlink()
    with pytest.raises(StateError, match="missing"):
        state.objects.read(digest)


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path: Path, file: Path) -> None:
    """A real full disk: a file system of one megabyte."""
    with State.write(tmp_path / "s") as state:
        state.record(NODE, attempt(figures={"kept": 1}), {"weights": file})
    script = tmp_path / "fill.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from lorafile.errors import StateError\nfrom lorafile.state import Attempt, Node, State\n"
        "big = Path(sys.argv[2]); big.write_bytes(b'x' * 4_000_000)\n"
        "try:\n    with State.write(Path(sys.argv[1])) as state:\n"
        "        state.record(Node('n', 'train', 1, {}, {}), Attempt('n', 'train', 'done'), {'w': big})\n"
        "except StateError as error:\n    print(error.exit_code, error)\n",
        encoding="utf-8",
    )
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        subprocess.run(["cp", "-r", tmp_path / "s", mount / "s"], check=True)
        told = subprocess.run([sys.executable, script, mount / "s", tmp_path / "big"], capture_output=True, text=True)
        assert told.stdout.startswith("4 The disk of the state"), told.stdout + told.stderr
        state = State.read(mount / "s")
        assert state.latest()[NODE.key][0].figures == {"kept": 1}
        assert not list((mount / "s" / "objects").rglob(".new-*")), "no half-written file is left"
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_curve_that_the_disk_does_not_give_back_is_no_run_without_a_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = tmp_path / "curve.jsonl.gz"
    write_lines(curve, [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}])
    failing = OSError(errno.EIO, os.strerror(errno.EIO))

    def fails(*_: object) -> object:
        raise failing

    with State.write(tmp_path / "state") as state:
        with monkeypatch.context() as patch, pytest.raises(StateError, match=r"curve.jsonl.gz.*Input/output error"):
            patch.setattr("gzip.open", fails)
            state.record(NODE, attempt(), {"curve.jsonl.gz": curve})
        assert state.latest() == {}, "what is recorded by halves would never be told from what is whole"
        state.record(NODE, attempt(), {"curve.jsonl.gz": curve})
        assert state.rows("SELECT step, loss FROM steps") == [(1, 2.5), (2, 2.25)]


def test_an_unwritable_state_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StateError, match=r"cannot be written|not a directory"), State.write(tmp_path / "file"):
        pass


OLD_INDEX = Path(__file__).parents[1] / "data" / "state_v1.sql"
TRAIN, SCORE = "a" * 64, "e" * 64


@pytest.fixture
def old_state(tmp_path: Path) -> Path:
    """A state that version 1 of the schema made, with the curve of its one run."""
    directory = tmp_path / "old"
    (directory / "objects").mkdir(parents=True)
    with closing(sqlite3.connect(directory / "state.db")) as connection:
        connection.executescript(OLD_INDEX.read_text(encoding="utf-8"))
        ((digest,),) = connection.execute("SELECT digest FROM outputs").fetchall()
    rows = [
        {"step": 1, "epoch": 0.5, "loss": 2.5, "learning_rate": 0.1, "grad_norm": 1.0},
        {"step": 2, "epoch": 1.0, "loss": float("nan"), "learning_rate": 0.05, "grad_norm": 2.0},
    ]
    write_lines(directory / "curve", rows)
    target = directory / "objects" / digest[:2] / digest
    target.parent.mkdir()
    (directory / "curve").rename(target)
    return directory


def table(directory: Path, statement: str) -> list[tuple[object, ...]]:
    """Query the index as any tool would."""
    with closing(sqlite3.connect(f"file:{directory / 'state.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def test_an_older_schema_is_read_as_it_is(old_state: Path) -> None:
    """On read-only media nothing can be brought up to date."""
    before = (old_state / "state.db").read_bytes()
    state = State.read(old_state)
    assert [attempt.outcome for attempt in state.latest()[TRAIN]] == ["done"]
    assert state.removed() == {} == state.acceptances()
    assert (old_state / "state.db").read_bytes() == before
    assert sorted(path.name for path in old_state.iterdir()) == ["objects", "state.db"]


def test_an_older_schema_is_brought_up_to_date_with_its_curves(old_state: Path) -> None:
    with State.write(old_state):
        pass
    assert table(old_state, "PRAGMA user_version") == [(2,)]
    assert table(old_state, "SELECT run, seed, step, loss FROM curves ORDER BY step") == [
        ("rank/r=8/seed=42", 42, 1, 2.5),
        ("rank/r=8/seed=42", 42, 2, None),
    ]
    assert table(old_state, "SELECT configuration, r, lora_alpha, learning_rate, final_loss FROM runs") == [
        ("rank/r=8", 8, 16, 0.1, 2.5)
    ], "a figure that is no number hides no other"
    assert table(old_state, "SELECT configuration, seed, split, metric, value, examples, train FROM metrics") == [
        ("rank/r=8", 42, "test", "log_loss", 0.25, 2, TRAIN)
    ]
    assert State.read(old_state).latest()[SCORE][0].figures["log_loss"] == 0.25


def test_what_is_removed_counts_no_more_and_stays_on_record(tmp_path: Path, file: Path) -> None:
    with State.write(tmp_path / "s") as state:
        state.record(NODE, attempt("failed"), {})
        state.record(NODE, attempt(), {"weights": file})
        ledger.remove(state, [1, 2], "a wrong data file")
    state = State.read(tmp_path / "s")
    assert state.latest() == {}
    assert state.removed()[NODE.key].endswith(": a wrong data file")
    assert table(tmp_path / "s", "SELECT outcome FROM attempts") == [("failed",), ("done",)]
    with State.write(tmp_path / "s") as state:
        state.record(NODE, attempt(), {"weights": file})
    assert State.read(tmp_path / "s").removed() == {}
    assert len(State.read(tmp_path / "s").latest()[NODE.key]) == 1


def test_an_acceptance_holds_while_its_result_stands(tmp_path: Path) -> None:
    with State.write(tmp_path / "s") as state:
        state.record(NODE, attempt(), {})
        ledger.accept(state, NODE.key, "n" * 64, "train", "only the data's order of columns changed")
        assert state.acceptances()["n" * 64].old == NODE.key
        ledger.remove(state, [1], "forgotten")
        assert state.acceptances() == {}
        state.record(NODE, attempt(), {})
        ledger.withdraw(state, "n" * 64)
        assert state.acceptances() == {}


def test_an_object_that_was_collected_is_known_as_such_until_it_is_back(tmp_path: Path, file: Path) -> None:
    with State.write(tmp_path / "s") as state:
        digest = state.record(NODE, attempt(), {"weights": file}).outputs["weights"]
        ledger.collect(state, {digest: 12})
        assert not state.objects.has(digest)
        assert table(tmp_path / "s", "SELECT digest, bytes FROM collected") == [(digest, 12)]
        state.record(NODE, attempt(), {"weights": file})
        assert table(tmp_path / "s", "SELECT digest FROM collected") == []


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A state of which a figure was changed by something else; every page of its index can be read."""
    directory = tmp_path / "damaged"
    with State.write(directory) as state:
        state.record(NODE, attempt(figures={"loss": 0.771234}), {})
    index = directory / "state.db"
    index.write_bytes(index.read_bytes().replace(b"0.771234", b"0.971234"))
    return directory


def test_a_damaged_index_is_not_exported_over_what_was_exported_before(damaged: Path, tmp_path: Path) -> None:
    tables, bundle = tmp_path / "tables", tmp_path / "all.tar"
    tables.mkdir()
    (tables / "metrics.csv").write_text("before", encoding="utf-8")
    bundle.write_text("before", encoding="utf-8")
    with pytest.raises(StateError, match="has changed since it was last closed"):
        State.snapshot(damaged, lambda state: write_tables(state, TABLES, "csv", tables))
    with pytest.raises(StateError, match="has changed since it was last closed"):
        State.snapshot(damaged, lambda state: export_bundle(state, (), bundle))
    assert [file.read_text(encoding="utf-8") for file in (*tables.iterdir(), bundle)] == ["before", "before"]


def test_what_a_damaged_index_leads_to_is_told_as_damage_and_ctrl_c_stays_itself(damaged: Path) -> None:
    def fails(error: BaseException) -> object:
        def read(state: State) -> None:
            state.latest()
            raise error

        return read

    with pytest.raises(StateError, match="has changed since it was last closed"):
        State.snapshot(damaged, fails(KeyError("what only damage leads to")))
    with pytest.raises(KeyboardInterrupt):
        State.snapshot(damaged, fails(KeyboardInterrupt()))


def test_where_there_may_be_no_more_threads_an_index_is_proven_all_the_same(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with State.write(tmp_path / "sound") as state:
        state.record(NODE, attempt(), {})
    monkeypatch.setattr("threading.Thread.start", none_left)
    assert list(State.read(tmp_path / "sound").latest()) == [NODE.key]
    with pytest.raises(StateError, match="has changed since it was last closed"):
        State.read(damaged)
