"""`lora state import`: what is handed over arrives whole, and what is here stays."""

import sqlite3
from contextlib import closing
from pathlib import Path

from bundle_fixture import RUN, lora
from state_fixture import STUDY, finish, write_study

from lorafile.state import State
from lorafile.study.study import Study


def reused(spec: Path, state: Path) -> set[str]:
    return {change.address for change in Study.load(spec, state).plan().changes if change.action == "reuse"}


def test_a_bundle_of_everything_is_the_same_state_elsewhere(spec: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.tar", tmp_path / "b.tar"
    for file in (first, second):
        assert lora(spec.parent / ".lora", "export", "--bundle", str(file)).exit_code == 0
    assert first.read_bytes() == second.read_bytes(), "equal states give equal bundles"
    done = lora(tmp_path / "there", "import", str(first))
    assert done.exit_code == 0, done.output
    assert lora(tmp_path / "there", "verify").exit_code == 0
    assert Study.load(spec, tmp_path / "there").plan().work == []
    tables = [
        lora(state, "export", "--table", "curves").stdout for state in (spec.parent / ".lora", tmp_path / "there")
    ]
    assert tables[0] == tables[1]


def test_a_run_brings_what_it_was_made_from_and_nothing_else(spec: Path, bundle: Path, tmp_path: Path) -> None:
    assert lora(tmp_path / "there", "import", str(bundle)).exit_code == 0
    assert reused(spec, tmp_path / "there") == {f"{RUN}:train", "data/train:prepare"}


def test_another_state_s_directory_is_merged(spec: Path, tmp_path: Path) -> None:
    other = write_study(tmp_path, STUDY.replace("lora.r = [4, 8]", "lora.r = [16]").replace('"small"', '"another"'))
    finish(other)
    done = lora(tmp_path / ".lora", "import", str(spec.parent / ".lora"))
    assert (done.exit_code, "New studies: small" in done.output) == (0, True), done.output
    assert Study.load(spec, tmp_path / ".lora").plan().work == []
    assert Study.load(other, tmp_path / ".lora").plan().work == []
    assert "Imported 0 attempts" in lora(tmp_path / ".lora", "import", str(spec.parent / ".lora")).output


def test_what_is_here_stays_and_what_was_lost_comes_back(spec: Path, bundle: Path, tmp_path: Path) -> None:
    mine = write_study(tmp_path)
    finish(mine)
    with closing(sqlite3.connect(tmp_path / ".lora" / "state.db")) as index:
        before = index.execute("SELECT * FROM attempts").fetchall()
        ((digest,),) = index.execute(
            "SELECT o.digest FROM outputs o JOIN attempts a ON a.id = o.attempt "
            f"WHERE a.address = '{RUN}:train' AND o.name = 'adapter_model.safetensors'"
        ).fetchall()
    state = State(tmp_path / ".lora")
    whole = state.objects.read(digest)
    state.objects.path(digest).unlink()
    assert lora(tmp_path / ".lora", "import", str(bundle)).exit_code == 0
    assert state.objects.read(digest) == whole
    with closing(sqlite3.connect(tmp_path / ".lora" / "state.db")) as index:
        assert index.execute("SELECT * FROM attempts").fetchall() == before
    assert lora(tmp_path / ".lora", "verify").exit_code == 0


def test_what_was_collected_there_is_no_damage_here(spec: Path, tmp_path: Path) -> None:
    mine = write_study(tmp_path)
    finish(mine)
    mine.write_text(STUDY.replace("lora.r = [4, 8]", "lora.r = [4]"), encoding="utf-8")
    assert lora(tmp_path / ".lora", "gc", str(mine), "--yes").exit_code == 0
    assert lora(tmp_path / ".lora", "export", "--bundle", str(tmp_path / "a.tar")).exit_code == 0
    assert lora(tmp_path / "there", "import", str(tmp_path / "a.tar")).exit_code == 0
    assert lora(tmp_path / "there", "verify").exit_code == 0
