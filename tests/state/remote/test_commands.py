"""`lora` on a state in a bucket, as its users type it."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("obstore")

from apply_fixture import RANKS, Watch
from command_fixture import lora

from lorafile import Study
from lorafile.state.remote import lock, push, session
from lorafile.state.remote.bucket import Bucket, LostLock, Unreachable
from lorafile.state.remote.lock import LockStatus, acquire, free

ONE = '[[sweep]]\nname = "rank"\nlora.r = [2]\n'
LONG = ONE + "train.max_steps = [3000]\n"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own, and nothing remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    session._remotes.clear()


def add(spec_file: Path, text: str) -> None:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write(text)


def test_what_a_colleague_has_done_is_not_done_again(spec_file: Path, url: str, tmp_path: Path) -> None:
    add(spec_file, RANKS)
    ann, ben = ({"XDG_CACHE_HOME": str(tmp_path / name), "LORA_STATE": url} for name in ("ann", "ben"))
    before = lora("plan", spec_file, "--detailed-exitcode", cwd=tmp_path, **ann)
    assert before.returncode == 2, before.stderr
    applied = lora("apply", spec_file, "--yes", cwd=tmp_path, **ann)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    plan = lora("plan", spec_file, "--detailed-exitcode", "--json", cwd=tmp_path, **ben)
    assert plan.returncode == 0, plan.stderr
    assert json.loads(plan.stdout)["summary"]["run"] == 0
    assert f"State {url} as of " in plan.stderr
    assert "new attempts" in plan.stderr
    assert lora("apply", spec_file, "--yes", cwd=tmp_path, **ben).returncode == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("file:")]
    shown = lora("state", "list", "--json", cwd=tmp_path, **ben)
    assert len(json.loads(shown.stdout)["rows"]) == 4, shown.stderr
    unlocked = lora("state", "unlock", cwd=tmp_path, **ben)
    assert "is not locked" in unlocked.stdout


def test_a_second_apply_is_told_who_holds_it(spec_file: Path, url: str, tmp_path: Path) -> None:
    add(spec_file, ONE)
    with acquire(Bucket.open(url)) as held:
        done = lora("apply", spec_file, "--yes", "--state", url, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "ben"))
        assert done.returncode == 4
        assert f"{held.holder.user} on {held.holder.host}" in done.stderr
        assert "last heartbeat was" in done.stderr
        assert "Traceback" not in done.stderr
        shown = lora("state", "unlock", url, "--yes", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "ben"))
        assert "is locked by" in shown.stdout
        with pytest.raises(LostLock):
            held.check()


@pytest.mark.usefixtures("alone")
def test_an_apply_that_lost_the_lock_stops_at_its_next_step(
    spec_file: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.2)
    add(spec_file, LONG)
    bucket = Bucket.open(url)
    study = Study.load(spec_file, url)
    watch = Watch("train", lambda: free(bucket, LockStatus.of(bucket)))
    began = time.monotonic()
    with pytest.raises(LostLock) as caught:
        study.apply(watchers=[watch])
    assert caught.value.exit_code == 4
    assert {attempt.outcome for attempt in watch.attempts if attempt.kind == "train"} == {"interrupted"}
    assert list(study.state.glob("running/*")), "its checkpoint is kept"
    assert time.monotonic() - began < 200


@pytest.mark.usefixtures("alone")
def test_an_apply_sends_while_it_works_and_lives_through_an_outage(
    spec_file: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(push, "EVERY_SECONDS", 0.3)
    monkeypatch.setattr(push, "MOST_ATTEMPTS", 4)
    create, failed = Bucket.create, []

    def away(bucket: Bucket, path: str, content: bytes) -> bool:
        if path.startswith("bundles/") and len(failed) < 2:
            failed.append(path)
            raise Unreachable(f"{bucket.url} cannot be reached (no route to host).")
        return create(bucket, path, content)

    monkeypatch.setattr(Bucket, "create", away)
    add(spec_file, RANKS)
    study = Study.load(spec_file, url)
    applied = study.apply()
    assert {attempt.outcome for attempt in applied.attempts} == {"done"}
    assert "The apply continues" in caplog.text
    names = [entry.path for entry in Bucket.open(url).entries("bundles/")]
    assert len(names) > 2
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ["XDG_CACHE_HOME"] + "-of-ben")
    session._remotes.clear()
    assert not Study.load(spec_file, url).plan().work


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_sent_in_the_end_is_kept_and_said(
    spec_file: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(spec_file, ONE)
    study = Study.load(spec_file, url)

    def away(_: Any, path: str, *_more: Any) -> Any:
        raise Unreachable("The network is gone.")

    with monkeypatch.context() as patch:
        watch = Watch("train", lambda: patch.setattr(Bucket, "create", away))
        with pytest.raises(session.StateError, match=r"are kept in .*lora state push --state file://"):
            study.apply(watchers=[watch])
    free(Bucket.open(url), LockStatus.of(Bucket.open(url)))
    done = lora("state", "push", "--state", url, cwd=spec_file.parent)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ["XDG_CACHE_HOME"] + "-of-ben")
    session._remotes.clear()
    assert not Study.load(spec_file, url).plan().work


@pytest.mark.usefixtures("alone")
def test_the_report_says_what_was_recorded_without_the_lock(spec_file: Path, url: str) -> None:
    add(spec_file, ONE)
    study = Study.load(spec_file, url)
    study.apply(state_lock="none")
    unlocked, attempts = study.gather().unlocked
    assert unlocked == attempts > 0
    page = next(path for path in study.report(spec_file.parent / "report") if path.name == "RESULTS.md")
    assert "--state-lock none" in page.read_text(encoding="utf-8")


def test_a_url_that_no_state_can_have_ends_with_4_and_makes_no_directory(spec_file: Path, tmp_path: Path) -> None:
    for command in (["plan", spec_file], ["apply", spec_file, "--yes"], ["state", "list"]):
        done = lora(*command, "--state", "s3://key:secret@bucket", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "c"))
        assert done.returncode == 4
        assert "secret" not in done.stderr
        assert not list(tmp_path.glob("s3:*"))
