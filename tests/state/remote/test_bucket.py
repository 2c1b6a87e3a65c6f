"""URLs, and what a service's errors become."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from lorafile.errors import MissingExtra, StateError
from lorafile.state.remote import is_url
from lorafile.state.remote.bucket import Bucket, Unreachable, normalized


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("s3://team/studies/", "s3://team/studies"),
        (Path("s3://team/studies"), "s3://team/studies"),
        ("S3://team", "s3://team"),
        ("file:///mnt/team/lora", "file:///mnt/team/lora"),
        (Path("file:///mnt/team/lora"), "file:///mnt/team/lora"),
        ("gs://b/p", "gs://b/p"),
    ],
)
def test_a_url_is_the_same_however_it_is_written(written: str | Path, url: str) -> None:
    assert is_url(written)
    assert normalized(written) == url


@pytest.mark.parametrize("written", ["http://host/x", "s3://", "s3://key:secret@b/p", "az://c/p?sig=secret", "x://y"])
def test_a_url_that_no_state_can_have_is_refused_without_repeating_it(written: str) -> None:
    with pytest.raises(StateError) as caught:
        normalized(written)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [".lora", "/data/lora", "C:lora", "s3"])
def test_a_directory_is_no_url(name: str) -> None:
    assert not is_url(name)


def test_a_file_is_created_once(tmp_path: Path) -> None:
    bucket = Bucket.open(f"file://{tmp_path}/b")
    assert bucket.create("lock/1", b"one")
    assert not bucket.create("lock/1", b"two")
    assert bucket.create("lock/1", b"one"), "the answer to the first try was lost"
    assert bucket.read("lock/1") == b"one"
    assert bucket.read("lock/2") is None
    assert [entry.path for entry in bucket.entries("lock/")] == ["lock/1"]


def test_a_typing_mistake_makes_no_directories(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="there is no directory"):
        Bucket.open(f"file://{tmp_path}/no/such/place")


def test_a_server_that_is_not_there_is_unreachable_and_nothing_secret_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "AKIDENTITY",
        "AWS_SECRET_ACCESS_KEY": "SECRETKEY",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unreachable) as caught:
        list(Bucket.open("s3://team/x").entries("bundles/"))
    assert str(caught.value).startswith("s3://team/x cannot be reached (")
    assert "\n" not in str(caught.value)
    assert not {"AKIDENTITY", "SECRETKEY"} & set(str(caught.value).split())
    assert caught.value.__suppress_context__, "a traceback would print the service's answer"


def test_without_obstore_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_obstore(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("obstore"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", no_obstore)
    with pytest.raises(MissingExtra, match=r"pip install .*\[remote\]"):
        Bucket.open("s3://team/x")
