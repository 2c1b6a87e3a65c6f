"""Finished studies, and people who share a state at a file:// URL."""

from collections.abc import Callable
from pathlib import Path

import pytest
from remote_fixture import Person
from state_fixture import STUDY, finish, write_study

pytest.importorskip("obstore")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of 37 attempts."""
    return finish(write_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of another study, which shares the prepared data."""
    text = STUDY.replace("small", "other").replace("[4, 8]", "[16]")
    return finish(write_study(tmp_path_factory.mktemp("other"), text))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first study, of which only the data are prepared: 3 attempts."""
    return finish(write_study(tmp_path_factory.mktemp("prepared")), ("prepare",))


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Person]:
    """Somebody with a name, on the bucket of this test."""
    return lambda name: Person(tmp_path / name, f"file://{tmp_path}/bucket", monkeypatch)
