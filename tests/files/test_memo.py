"""What follows from a text alone is made once; whatever is not surely the same is made again."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafile.files import memo
from lorafile.files.memo import remembered

Make = Callable[..., dict[str, list[int]]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that something was made of, one for each time; everything is kept, however fast it was made."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(memo, "_LONG", -1)
    return []


@pytest.fixture
def make(made: list[str]) -> Make:
    """Return what is made of a text: `make("a text")`, and in `made` that it was."""

    def numbers(source: str, lasts: Callable[[], bool] = lambda: True) -> dict[str, list[int]]:
        def make() -> dict[str, list[int]]:
            made.append(source)
            return {source: [len(source)]}

        result = remembered("numbers", source, make, lasts)
        assert result == {source: [len(source)]}
        return result

    return numbers


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "lorafile" / "numbers").iterdir())


def test_the_same_text_is_read_once(make: Make, made: list[str]) -> None:
    for text in ("a", "b", "a", "b"):
        make(text)
    assert made == ["a", "b"]


def test_nobody_else_sees_what_is_done_to_a_result(make: Make, made: list[str]) -> None:
    make("a")["a"].append(7)
    make("a")["a"].append(7)
    make("a")
    assert made == ["a"]


def test_what_is_made_fast_is_made_again(make: Make, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memo, "_LONG", 60)
    make("a")
    make("a")
    assert made == ["a", "a"]


def test_what_does_not_follow_from_the_text_alone_is_made_again(make: Make, made: list[str]) -> None:
    make("a", lambda: False)
    make("a")
    assert made == ["a", "a"]


@pytest.mark.parametrize("damage", [b"", b"not a pickle", None], ids=["empty", "overwritten", "one bit"])
def test_what_is_damaged_is_made_again(make: Make, made: list[str], tmp_path: Path, damage: bytes | None) -> None:
    make("a")
    (file,) = kept(tmp_path)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content) if damage is None else damage)
    make("a")
    make("a")
    assert made == ["a", "a"]


def test_other_code_makes_it_again(
    make: Make, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "code.py").write_text("A = 1\n")
    (package / "table.toml").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(memo, "_CODE", ("package",))
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(memo, "_BEGAN", time.time_ns())
    for change in ("", "code.py", "table.toml"):
        if change:
            os.utime(package / change, (1, 1))
        memo._stamp.cache_clear()
        make("a")
        make("a")
    assert made == ["a"] * 3
    for change in ("code.py", "table.toml"):  # while this process runs: the code that it has read is not this
        os.utime(package / change)
    memo._stamp.cache_clear()
    make("a")
    make("a")
    memo._stamp.cache_clear()
    assert made == ["a"] * 5


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_the_file_of_another_user_is_not_read(make: Make, made: list[str], tmp_path: Path) -> None:
    make("a")
    os.chown(kept(tmp_path)[0], 12345, 12345)
    make("a")
    assert made == ["a", "a"]


def test_the_newest_are_kept(make: Make, made: list[str], tmp_path: Path) -> None:
    texts = [str(number) for number in range(12)]
    for number, text in enumerate(texts):
        make(text)
        newest = max(kept(tmp_path), key=lambda file: file.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    assert len(kept(tmp_path)) == 8
    make(texts[-1])
    make(texts[0])
    assert made == [*texts, texts[0]]


def test_without_a_cache_it_is_made_each_time(
    make: Make, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    make("a")
    make("a")
    assert made == ["a", "a"]
