"""A state on a real S3 server: the lock, its takeover, a zombie, kills in the middle of a push, a rebuilt index.

start_s3.sh starts the server, and installs it where it is missing and root may do that; elsewhere all is skipped.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore")

import remote_process
from command_fixture import lora
from remote_fixture import Person, contents
from s3_fixture import s3_server, unconditional_proxy
from state_fixture import finish, write_study

from lorafile.errors import StateError
from lorafile.state.remote import changes, lock, push
from lorafile.state.remote.bucket import Bucket
from lorafile.state.remote.lock import LockStatus, acquire
from lorafile.state.remote.session import locked
from lorafile.state.transfer.importer import import_state

LEASE, BEAT = 3.0, 0.5  # seconds
PLACES = range(1, 21)  # writes of a push, at which it is killed
ATTEMPTS = 37


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    base = tmp_path_factory.getbasetemp()
    with s3_server((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "s3") as port:
        yield port


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(write_study(tmp_path_factory.mktemp("study")))


@pytest.fixture
def url(server: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of its own, with credentials as a user has them: in the environment."""
    values = {"ENDPOINT_URL": f"http://127.0.0.1:{server}", "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "secret"}
    for name, value in {**values, "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(lock, "LEASE", LEASE)
    monkeypatch.setattr(lock, "BEAT", BEAT)
    monkeypatch.setattr(changes, "SMALL", 1000)
    monkeypatch.setattr(push, "MOST_ATTEMPTS", 5)
    return f"s3://team/{secrets.token_hex(6)}"


@pytest.fixture
def person(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Person]:
    return lambda name: Person(tmp_path / name, url, monkeypatch)


def start(*arguments: str | Path, cache: Path | None = None) -> "subprocess.Popen[str]":
    """Start a process of remote_process.py."""
    times = {"LEASE": str(LEASE), "BEAT": str(BEAT)} | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    command = [sys.executable, remote_process.__file__, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=os.environ | times)


def end(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        process.kill()
        process.communicate()


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_sixteen_takers_at_once_give_one_holder_and_its_lease_ends_with_it(url: str) -> None:
    takers = [start("take", url, str(time.time() + 6)) for _ in range(16)]
    try:
        lines = [first_line(taker) for taker in takers]
        assert sorted(lines) == [""] * 15 + ["held"]
        for taker, line in zip(takers, lines, strict=True):
            if not line:
                assert taker.wait(60) == 4
                assert taker.stderr is not None
                assert "is in use by" in taker.stderr.read()
        time.sleep(LEASE + 1)
        with pytest.raises(StateError, match="is in use by"):
            acquire(Bucket.open(url))  # its beats keep it
    finally:
        end(*takers)
    with acquire(Bucket.open(url), timeout=60) as taken:  # killed: the lock is free a lease later
        assert taken.number >= 2


def test_a_zombie_stops_with_4_and_nothing_is_lost(person: Callable[[str], Person], url: str, finished: Path) -> None:
    ann, ben = person("ann"), person("ben")
    zombie = start("record", url, finished, cache=ann.cache)
    try:
        assert first_line(zombie) == "held"
        zombie.send_signal(signal.SIGSTOP)
        with locked(ben.open().directory, lock_timeout=60):
            zombie.send_signal(signal.SIGCONT)
            out, said = zombie.communicate("go on\n", timeout=60)
        assert zombie.returncode == 4, out + said
        assert "was taken by" in said
        assert not list(Bucket.open(url).entries("bundles/"))
    finally:
        end(zombie)
    ann.sync()  # the next command from there sends what the zombie had finished
    assert contents(ben.look()) == contents(ann.look())
    assert len(ben.look().rows("SELECT 1 FROM results")) == ATTEMPTS


@pytest.mark.sampled(2)
@pytest.mark.parametrize("place", PLACES)
def test_a_push_that_is_killed_is_finished_by_the_next(
    person: Callable[[str], Person], url: str, finished: Path, place: int
) -> None:
    """By kill -9, before (odd) and after (even) a write; then everything is there once, and nothing is damaged."""
    ann = person("ann")
    import_state(finished, ann.open().directory)
    killed = start("die", url, str(place), cache=ann.cache)
    assert killed.wait(60) == -signal.SIGKILL, killed.communicate()
    killed.communicate()
    with locked(ann.open().directory, lock_timeout=60):
        pass
    here, there = contents(ann.look()), contents(person("new").look())
    assert here == there
    assert len(there["attempts"]) == len(there["seals"]) == ATTEMPTS
    state = person("new").look()
    assert all(state.objects.read(digest) for (digest,) in state.rows("SELECT digest FROM outputs"))


def test_an_index_is_rebuilt_and_files_come_when_they_are_read(
    person: Callable[[str], Person], url: str, finished: Path
) -> None:
    with locked(person("ann").open().directory):
        import_state(finished, person("ann").open().directory)
    state = person("new").look()
    assert contents(state) == contents(person("ann").look())
    assert len(list(Bucket.open(url).entries("bundles/"))) == -(-ATTEMPTS // 5)
    state = person("new").look()
    away = [digest for (digest,) in state.rows("SELECT digest FROM outputs") if not state.objects.is_here(digest)]
    assert away
    assert all(state.objects.proven(digest) for digest in away)


def test_a_proxy_that_drops_conditions_is_refused(server: int, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket.open(url)
    with unconditional_proxy(server, bucket) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(StateError, match="--state-lock none"):
            acquire(Bucket.open(url))
    assert LockStatus.of(bucket).number == 0


def test_what_is_refused_or_not_there_is_a_sentence(url: str, tmp_path: Path) -> None:
    """And no secret is in it."""
    with pytest.raises(StateError, match="There is no bucket"):
        list(Bucket.open("s3://no-such-bucket/x").entries("bundles/"))
    own = {"XDG_CACHE_HOME": str(tmp_path / "c"), "AWS_SECRET_ACCESS_KEY": "WRONGSECRET"}
    done = lora("state", "list", "--state", url, cwd=tmp_path, **own)
    assert done.returncode == 4
    assert f"Access to {url} is denied" in done.stderr
    assert not [word for word in ("Traceback", "WRONGSECRET", "Signature=", "AWSAccessKeyId") if word in done.stderr]


@pytest.mark.sampled(0)  # it trains: with --full
def test_a_study_is_applied_once_for_two(url: str, spec_file: Path, tmp_path: Path) -> None:
    ann, ben = ({"XDG_CACHE_HOME": str(tmp_path / name), "LORA_STATE": url} for name in ("ann", "ben"))
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write('[[sweep]]\nname = "rank"\nlora.r = [2]\n')
    applied = lora("apply", spec_file, "--yes", cwd=tmp_path, **ann)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    plan = lora("plan", spec_file, "--detailed-exitcode", cwd=tmp_path, **ben)
    assert plan.returncode == 0, plan.stdout + plan.stderr
