"""What stands in an input is told on the terminal, and never obeyed by it."""

import io
import json

from lorafile.cli.terminal import printable
from lorafile.cli.views.console import console

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
