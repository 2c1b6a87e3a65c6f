"""Two people and one bucket: what one has done the other has, whatever is killed in between."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from remote_fixture import Person, contents, forgetful

from lorafile.errors import StateError
from lorafile.state import Attempt, State, ledger
from lorafile.state.remote import changes, session
from lorafile.state.remote.bucket import Bucket, LostLock, Unreachable
from lorafile.state.remote.lock import LockStatus, free
from lorafile.state.remote.push import Sender
from lorafile.state.remote.session import locked
from lorafile.state.remote.transfer import garbage, pull, push, sweep
from lorafile.state.transfer.importer import import_state

Who = Callable[[str], Person]


def done(person: Person, state: Path) -> None:
    """Record all of a state as an apply does."""
    directory = person.open().directory
    with locked(directory):
        import_state(state, directory)


def unsent(person: Person, state: Path) -> Path:
    """Record all of a state as a command does that is killed before it has sent anything."""
    directory = person.open().directory
    import_state(state, directory)
    return directory


def small_files_only(monkeypatch: pytest.MonkeyPatch, limit: int = 100) -> None:
    monkeypatch.setattr(changes, "SMALL", limit)


def test_what_one_has_done_the_other_has(person: Who, finished: Path) -> None:
    done(person("ann"), finished)
    assert contents(person("ben").look()) == contents(person("ann").look())
    assert person("ben").look().rows("SELECT count(*) FROM results") == [(37,)]


def test_an_index_is_rebuilt_from_the_bundles(
    person: Who, finished: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two who took turns, in many bundles, with everything that is said of results later."""
    monkeypatch.setattr("lorafile.state.remote.push.MOST_ATTEMPTS", 3)
    ann, ben = person("ann"), person("ben")
    done(ann, finished)
    done(ben, other)
    with locked(ann.open().directory) as held, State.write(ann.open().directory) as state:
        assert held
        (first, second), *_ = state.rows("SELECT min(key), max(key) FROM results WHERE kind = 'prepare'")
        ledger.accept(state, first, second, "prepare", "the same rows")
        ledger.accept(state, second, first, "prepare", "a mistake")
        ledger.withdraw(state, first)
        ledger.remove(state, [4], "the GPU was faulty")
    ben.sync()
    assert contents(person("new").look()) == contents(ann.look()) == contents(ben.look())
    assert ben.look().rows("SELECT count(*) FROM acceptances WHERE withdrawn IS NOT NULL") == [(1,)]
    assert len(list(Bucket.open(ann.url).entries("bundles/"))) > 8


def test_nothing_new_sends_nothing(person: Who, finished: Path) -> None:
    done(person("ann"), finished)
    before = [entry.path for entry in Bucket.open(person("ann").url).entries("bundles/")]
    person("ann").sync()
    person("ben").sync()
    assert [entry.path for entry in Bucket.open(person("ann").url).entries("bundles/")] == before


def test_large_files_come_when_they_are_read(person: Who, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_files_only(monkeypatch)
    done(person("ann"), finished)
    state = person("ben").look()
    (digest,) = state.rows("SELECT digest FROM outputs WHERE name = 'adapter_model.safetensors' LIMIT 1")[0]
    assert state.objects.has(digest)
    assert not state.objects.is_here(digest)
    assert len(state.objects.read(digest)) == 64 * 50
    assert state.objects.is_here(digest)
    assert not state.rows("SELECT * FROM collected"), "nothing of this has gone"


def test_a_file_that_is_damaged_in_the_bucket_is_not_taken(
    person: Who, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_files_only(monkeypatch)
    done(person("ann"), finished)
    state = person("ben").look()
    (digest,) = state.rows("SELECT digest FROM outputs WHERE name = 'adapter_model.safetensors' LIMIT 1")[0]
    Bucket.open(person("ben").url).write(f"objects/{digest[:2]}/{digest}", b"something else")
    with pytest.raises(StateError, match="damaged in the state's remote"):
        state.objects.proven(digest)
    assert not state.objects.is_here(digest)


def test_what_a_killed_command_had_not_sent_goes_with_the_next(
    person: Who, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent(person("ann"), finished)  # without the lock: nothing of it was sent
    assert not person("ben").look().rows("SELECT 1 FROM results")
    person("ann").sync()
    assert contents(person("ben").look()) == contents(person("ann").look())


@pytest.mark.parametrize("call", range(12))
def test_a_push_that_dies_anywhere_is_finished_by_the_next(
    person: Who, finished: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """At each of the first calls to the bucket, before it and after it."""
    small_files_only(monkeypatch)
    monkeypatch.setattr("lorafile.state.remote.push.MOST_ATTEMPTS", 5)
    ann, calls = person("ann"), iter(range(1000))
    directory = unsent(ann, finished)
    create = Bucket._put_new

    def dying(bucket: Bucket, path: str, content: bytes) -> bool:
        if path.startswith("lock"):
            return create(bucket, path, content)
        now = next(calls)
        if now == call and call % 2:
            raise KeyboardInterrupt
        created = create(bucket, path, content)
        if now >= call:
            raise KeyboardInterrupt
        return created

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "_put_new", dying)
        with pytest.raises(KeyboardInterrupt):
            ann.sync()
    assert directory == ann.open().directory
    ann.sync()
    assert contents(person("new").look()) == contents(ann.look())
    assert len(ann.look().rows("SELECT DISTINCT digest FROM seals")) == 37


def test_a_damaged_bundle_is_left_out_and_nothing_is_built_on_it(
    person: Who, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done(person("ann"), finished)
    bucket = Bucket.open(person("ann").url)
    bucket.write("bundles/9-0.tar", bucket.read("bundles/1-0.tar")[:2000])  # type: ignore[index]
    assert person("ben").look().rows("SELECT count(*) FROM results") == [(37,)]
    assert "bundles/9-0.tar" in caplog.text
    with pytest.raises(StateError, match=r"bundles/9-0\.tar.*delete that file"):
        person("ben").sync()
    assert LockStatus.of(bucket).done, "and the lock is free again"


def test_without_a_network_the_copy_serves(
    person: Who, finished: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done(person("ann"), finished)
    person("ben").look()

    def away(*_: Any) -> Any:
        raise Unreachable("file://… cannot be reached (no route to host).")

    monkeypatch.setattr(Bucket, "entries", away)
    assert person("ben").look().rows("SELECT count(*) FROM results") == [(37,)]
    assert "the copy on this machine" in caplog.text
    with pytest.raises(StateError, match="There is no copy on this machine"):
        person("new").look()


def test_a_reader_says_how_fresh_it_is(person: Who, finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    done(person("ann"), finished)
    with caplog.at_level(logging.INFO, "lorafile"):
        person("ben").look()
    assert "UTC, with 37 new attempts." in caplog.text


def test_who_lost_the_lock_stops_sending(person: Who, finished: Path) -> None:
    ann = person("ann")
    bucket = Bucket.open(ann.url)
    with pytest.raises(LostLock), locked(ann.open().directory):
        free(bucket, LockStatus.of(bucket))
        unsent(ann, finished)
    assert not list(bucket.entries("bundles/"))
    assert LostLock.exit_code == 4
    ann.sync()
    assert contents(person("ben").look()) == contents(ann.look())


def test_two_who_finished_the_same_come_to_the_same_result(person: Who, other: Path, prepared: Path) -> None:
    """One lost the lock, the other did the work again; afterwards both, and a third, have one result of each node."""
    ann, ben = person("ann"), person("ben")
    unsent(ann, prepared)
    with State.write(ann.open().directory) as state:
        again(state, 1, started="2026-11-02T10:00:00+00:00")
    done(ben, prepared)
    ann.sync()
    ben.sync()
    views = [who.look().rows("SELECT key, started FROM results ORDER BY key") for who in (ann, ben, person("new"))]
    assert views[0] == views[1] == views[2]
    assert all(started.startswith("2026-11-01") for _, started in views[0]), "what was sent first counts"
    assert ann.look().rows("SELECT count(*) FROM removals") == [(1,)]


def again(state: Any, number: int, **changed: Any) -> None:
    """Record one more attempt at what an attempt was of."""
    key = state.rows("SELECT key FROM attempts WHERE id = ?", number)[0][0]
    attempt: Attempt = state.latest([key])[key][-1]._replace(**changed)
    node = state.node(key)
    assert node is not None
    state.record(node, attempt, {name: state.objects.path(digest) for name, digest in attempt.outputs.items()})


def test_a_bundle_that_comes_late_does_not_replace_what_is_there(person: Who, prepared: Path) -> None:
    """A zombie's, sent under an earlier lock."""
    ann, ben = person("ann"), person("ben")
    done(ben, prepared)
    zombie = ann.open()
    import_state(prepared, zombie.directory)
    with State.write(zombie.directory) as state:
        again(state, 1, started="2026-11-02T10:00:00+00:00")
    Sender(zombie.bucket, State(zombie.directory), zombie.knowledge, None, number=0).send()
    ben.sync()
    views = [who.look().rows("SELECT key, started FROM results ORDER BY key") for who in (ben, person("new"))]
    assert views[0] == views[1]


def test_without_a_lock_it_is_recorded_and_names_are_never_used_twice(person: Who, finished: Path, other: Path) -> None:
    directory = person("ann").open().directory
    for state in (finished, other):
        with locked(directory, mode="none") as held:
            assert held is not None
            assert held.provenance == {"state_lock": "none"}
            import_state(state, directory)
    bucket = Bucket.open(person("ann").url)
    assert len(list(bucket.entries("bundles/"))) == 2
    assert not list(bucket.entries("lock/"))
    assert contents(person("ben").look()) == contents(person("ann").look())


def test_a_backend_that_ignores_conditions_takes_nothing(person: Who, finished: Path) -> None:
    remote = person("ann").open()
    remote.bucket = forgetful(remote.bucket)
    with pytest.raises(StateError, match="--state-lock none"), locked(remote.directory):
        pass
    assert not list(remote.bucket.entries("bundles/"))


def test_gc_takes_only_what_no_bundle_names_and_is_old(
    person: Who, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os
    import time

    small_files_only(monkeypatch)
    done(person("ann"), finished)
    remote, old, new = person("ann").open(), "a" * 64, "b" * 64
    for digest in (old, new):
        remote.bucket.write(f"objects/{digest[:2]}/{digest}", b"left by a push that was killed")
    week_ago = time.time() - 8 * 86400
    for file in (tmp_path / "bucket" / "objects").rglob("*"):
        if file.is_file() and file.name != new:
            os.utime(file, (week_ago, week_ago))
    assert garbage(remote).sizes.keys() == {old}
    named = len(remote.knowledge.objects)
    sweep(remote)
    left = {entry.path.rpartition("/")[2] for entry in remote.bucket.entries("objects/")}
    assert left == {*remote.knowledge.objects, new}
    assert len(left) == named + 1


def test_push_merges_a_directory_and_pull_gives_one_back(
    person: Who, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small_files_only(monkeypatch)
    pushed = push(person("ann").open(), finished)
    assert pushed.attempts == 37
    assert push(person("ann").open(), finished).attempts == 0
    remote = person("ben").open()
    remote.refresh()
    pull(remote, tmp_path / "copy")
    copy = State.read(tmp_path / "copy")
    assert copy.rows("SELECT * FROM results") == State.read(finished).rows("SELECT * FROM results")
    assert all(copy.objects.is_here(digest) for (digest,) in copy.rows("SELECT digest FROM outputs"))
    pull(remote, remote.directory)
    shutil.rmtree(tmp_path / "bucket" / "objects")
    assert all(State.read(remote.directory).objects.proven(digest) for digest in remote.knowledge.objects)


def test_what_is_no_state_is_refused(person: Who, tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "lora.json").write_text('{"format": "photos", "format_version": "1"}')
    with pytest.raises(StateError, match="is not a state"):
        person("ann").sync()
    (tmp_path / "bucket" / "lora.json").write_text('{"format": "lorafile-remote", "format_version": "2.0"}')
    with pytest.raises(StateError, match="made by a newer lorafile"):
        person("ann").sync()


def test_a_remote_that_is_known_by_its_directory_is_the_same(person: Who, finished: Path) -> None:
    directory = person("ann").open().directory
    session._remotes.clear()
    remote = session.remote_of(directory)
    assert remote is not None
    assert remote.url == person("ann").url
