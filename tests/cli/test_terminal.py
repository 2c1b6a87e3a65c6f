"""What stands in an input is told on the terminal, and never obeyed by it."""

import io
import json
from itertools import pairwise

import pytest

from lorafile.cli.status_line import line
from lorafile.cli.terminal import breaks, printable
from lorafile.cli.views.console import console
from lorafile.files.tasks import Task, current, task

OBEYED = "a\x1b[2J\x9b31m\x07\u202egnp\ud800"


def test_control_characters_are_told() -> None:
    assert printable(OBEYED) == "a\\u001b[2J\\u009b31m\\u0007\\u202egnp\\ud800"
    assert printable("two\n\tlines, ünï → العربية") == "two\n\tlines, ünï → العربية"


def test_json_stays_the_same_json() -> None:
    assert json.loads(printable(json.dumps(OBEYED, ensure_ascii=False))) == OBEYED


def test_a_console_obeys_its_own_codes_alone() -> None:
    out = console()
    out.file = io.StringIO()
    out.print("[bold]fine[/] \x1b[2J", end="\r")
    assert out.file.getvalue() == "fine \\u001b[2J\r"


def test_lines_break_before_words_and_never_in_them() -> None:
    text = "study.toml:3:13: a path of /somewhere/that/is/long/indeed/and/one/word and more"
    starts = [0, *breaks(text, 30), len(text)]
    parts = [text[start:end] for start, end in pairwise(starts)]
    assert "".join(parts) == text
    assert [part.rstrip() for part in parts] == [
        "study.toml:3:13: a path of",
        "/somewhere/that/is/long/indeed/and/one/word",
        "and more",
    ]


def test_what_is_indented_goes_on_under_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    out = console()
    out.file, out.no_color = io.StringIO(), True
    out.print("  [green]+[/] rank/r=8  (3 train, 6 predict, 6 score)  new: r 4 → 8")
    shown = [part.rstrip() for part in out.file.getvalue().splitlines()]
    assert shown == ["  + rank/r=8  (3 train, 6 predict, 6", "    score)  new: r 4 → 8"]


def test_what_takes_long_says_how_far_it_is() -> None:
    assert current() is None
    with task("Hashing the weights of phi-2", 16_100_000_000) as outer, task("Reading rows", unit="rows") as inner:
        assert current() is inner
        outer.advance(4_200_000_000)
    assert current() is None
    assert line(outer, 80).startswith("Hashing the weights of phi-2: 4.2 GB of 16.1 GB, ")
    assert line(Task("Reading rows", unit="rows", done=1200), 80).startswith("Reading rows: 1,200 rows, ")
    assert len(line(Task("Hashing the weights of " + "long/" * 40, 10), 60)) < 60
