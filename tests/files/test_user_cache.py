"""Digests of large files are kept in the user's cache, and never used for a file that is another one by now."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from lorafile.files import user_cache
from lorafile.files.user_cache import cached_digest

OLD = time.time() - 3600


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A large file that changed a while ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(user_cache, "_SETTLED", -1)  # its ctime is now, whatever its mtime says
    file = tmp_path / "model.safetensors"
    file.write_bytes(os.urandom(1 << 20) * 17)
    os.utime(file, (OLD, OLD))
    return file


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def bytes_read(file: Path, monkeypatch: pytest.MonkeyPatch, rehash: bool = False) -> int:
    """Return how many bytes a digest takes to be read, after checking that it is right."""
    read = []

    def counted(path: Path, on_read: object = None) -> str:
        read.append(path.stat().st_size)
        return sha256(path)

    with monkeypatch.context() as patched:
        patched.setattr(user_cache, "file_digest", counted)
        assert cached_digest(file, rehash) == sha256(file)
    return sum(read)


def test_a_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = file.stat().st_size
    assert [bytes_read(file, monkeypatch) for _ in range(3)] == [size, 0, 0]
    assert bytes_read(file, monkeypatch, rehash=True) == size
    told: list[int] = []
    cached_digest(file, on_read=told.append)
    assert sum(told) == size, "what is known counts as done"


def test_whatever_may_have_changed_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same path, size and modification time: the inode or the change time says that it is another file."""
    bytes_read(file, monkeypatch)
    with file.open("r+b") as stream:
        stream.write(b"other bytes")
    os.utime(file, (OLD, OLD))
    assert bytes_read(file, monkeypatch) == file.stat().st_size
    other = file.with_name("other")
    other.write_bytes(os.urandom(file.stat().st_size))
    os.utime(other, (OLD, OLD))
    other.replace(file)
    assert bytes_read(file, monkeypatch) == file.stat().st_size


def test_a_damaged_or_unwritable_cache_costs_only_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_read(file, monkeypatch)
    for kept in (file.parent / "cache").rglob("*.json"):
        kept.write_text('{"identity": ["')
    assert bytes_read(file, monkeypatch) == file.stat().st_size
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert bytes_read(file, monkeypatch) == file.stat().st_size


def test_a_file_that_changed_a_moment_ago_is_not_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the resolution of a file system's clock a second write would leave the same times."""
    monkeypatch.setattr(user_cache, "_SETTLED", 2_000_000_000)
    file.write_bytes(b"x" * (1 << 24))
    assert [bytes_read(file, monkeypatch) for _ in range(2)] == [1 << 24, 1 << 24]
