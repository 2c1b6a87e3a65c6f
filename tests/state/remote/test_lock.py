"""The lease: one holder, who is named, and who stops when it is another's."""

import contextlib
import threading
import time
from pathlib import Path

import pytest
from remote_fixture import forgetful

from lorafile.errors import StateError
from lorafile.state.remote import lock
from lorafile.state.remote.bucket import Bucket, LostLock
from lorafile.state.remote.lock import LockStatus, RemoteLock, acquire, describe, free


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket.open(f"file://{tmp_path}/b")


def test_the_second_is_told_who_holds_it(bucket: Bucket) -> None:
    with acquire(bucket), pytest.raises(StateError) as caught:
        acquire(bucket)
    said = str(caught.value)
    assert "is in use by" in said
    assert "last heartbeat was" in said
    assert f"lora state unlock {bucket.url}" in said


def test_it_is_free_when_its_holder_has_ended(bucket: Bucket) -> None:
    with acquire(bucket) as first:
        pass
    with acquire(bucket) as second:
        assert second.number == first.number + 1


def test_who_waits_gets_it(bucket: Bucket) -> None:
    first = acquire(bucket).__enter__()
    threading.Timer(0.5, lambda: first.__exit__()).start()
    with acquire(bucket, timeout=20) as second:
        assert second.number == 2


def test_sixteen_takers_at_once_give_one_holder(bucket: Bucket) -> None:
    held: list[RemoteLock] = []
    barrier = threading.Barrier(16)

    def take() -> None:
        barrier.wait()
        with contextlib.suppress(StateError):
            held.append(acquire(Bucket.open(bucket.url)))

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1


def test_a_holder_that_was_silent_for_a_lease_has_lost_it(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 0.5)
    zombie = acquire(bucket)  # no thread: as a process that was stopped
    time.sleep(0.7)
    with acquire(bucket), pytest.raises(LostLock, match="was taken by"):
        zombie.check()


def test_beats_keep_it(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 1.0)
    monkeypatch.setattr(lock, "BEAT", 0.1)
    with acquire(bucket) as held:
        time.sleep(1.5)
        with pytest.raises(StateError, match="is in use"):
            acquire(bucket)
        held.check()


def test_unlock_shows_the_holder_and_frees(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    lost = threading.Event()
    with acquire(bucket) as held:
        held.on_lost = lost.set
        status = LockStatus.of(bucket)
        assert held.holder.user in describe(status, bucket)
        assert "last heartbeat" in describe(status, bucket)
        free(bucket, status)
        assert lost.wait(5), "the holder notices at its next beat"
        with pytest.raises(LostLock, match="released by `lora state unlock`"):
            held.check()
    assert LockStatus.of(bucket).done


def test_a_backend_that_ignores_conditions_is_refused(bucket: Bucket) -> None:
    with pytest.raises(StateError, match="--state-lock none"):
        acquire(forgetful(bucket))
    assert not list(bucket.entries("lock/")), "and the probe is gone"


def test_files_of_old_locks_are_cleared_away(bucket: Bucket) -> None:
    for _ in range(25):
        with acquire(bucket):
            pass
    assert LockStatus.of(bucket).number == 25
    assert len(list(bucket.entries("lock/"))) <= 2 * 21


def test_a_lock_that_is_malformed_counts_all_the_same(bucket: Bucket) -> None:
    bucket.write("lock/7", b"\xff{")
    bucket.write("lock/notes.txt", b"not ours")
    with pytest.raises(StateError, match="in use by another process"):
        acquire(bucket)
