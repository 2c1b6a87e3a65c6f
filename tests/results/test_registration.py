"""What was written down before the first run: from git, by an apply, told by the report."""

from pathlib import Path

import pytest
from apply_fixture import load, study
from git_fixture import commit, edit, git

REGISTERED = """
[[sweep]]
name = "untuned"
method = ["none"]
[verdict]
margin = "5%"
[[claim]]
text = "It answers some"
one = "untuned/method=none"
at_most = 9.0
"""


@pytest.fixture
def registered(spec_file: Path) -> Path:
    edit(spec_file, ("[study]\n", "[study]\nregistered = true\n"))
    study(spec_file, REGISTERED)
    return spec_file


def told(spec_file: Path) -> str:
    (line,) = load(spec_file).gather().registration
    return line


def test_what_stood_in_the_commit_is_told_from_what_came_later(registered: Path) -> None:
    git(registered, "init", "-q")
    commit(registered)
    load(registered).apply(workers=1)
    line = told(registered)
    assert "Registered before the first attempt" in line and "(self-declared)" in line
    assert "1 of 1 claim; the margin (5%) and the error rate" in line
    edit(registered, ('"5%"', '"20%"'))
    with registered.open("a", encoding="utf-8") as stream:
        stream.write('[[claim]]\ntext = "It answers few"\none = "untuned/method=none"\nat_most = 5.0\n')
    line = told(registered)
    assert "1 of 2 claims (“It answers few” came later or changed)" in line
    assert "verdict.margin was 5% and is 20%" in line


def test_a_spec_with_changes_that_are_not_committed_is_not_registered(registered: Path) -> None:
    git(registered, "init", "-q")
    commit(registered)
    edit(registered, ('"5%"', '"4%"'))
    load(registered).apply(workers=1)
    assert "Not registered: at the first attempt" in told(registered)
    assert "the spec differed from the one in commit" in told(registered)


def test_without_git_nothing_is_registered_and_without_the_setting_nothing_is_said(registered: Path) -> None:
    assert "Nothing has run yet" in told(registered)
    load(registered).apply(workers=1)
    assert "no git commit was recorded" in told(registered)
    edit(registered, ("registered = true\n", ""))
    assert load(registered).gather().registration == ()


def test_a_report_of_a_study_that_is_not_registered_asks_git_nothing(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that somebody prepared could make git run what it likes."""
    study(spec_file, REGISTERED)
    monkeypatch.setattr("lorafile.files.git.git", lambda *arguments: pytest.fail("git was asked"))
    assert load(spec_file).gather().commit == ""
