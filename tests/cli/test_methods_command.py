"""`lora methods`: every method with what it can do, readable at 80 columns, and as JSON."""

import json
import re

import pytest
from click.testing import CliRunner
from rich.console import Console

from lorafile.cli.main import main
from lorafile.cli.views.methods import show_methods
from lorafile.specs.optimizers import OPTIMIZERS
from lorafile.specs.schedules import SCHEDULES
from lorafile.specs.tables.methods import METHODS, probed


def test_every_method_of_pefts_is_listed_once_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show_methods(Console(width=80, force_terminal=True, no_color=True, highlight=False))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = [line for line in shown.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert [name for name in first if name in probed()] == [*METHODS, *(n for n in probed() if n not in METHODS)]
    assert [name for name in first if name in OPTIMIZERS] == [*OPTIMIZERS]
    assert [name for name in first if name in SCHEDULES] == [*SCHEDULES]
    (row,) = [line for line in lines if line.startswith("miss ")]
    assert row.split()[:7] == ["miss", "layers", "r", "yes", "yes", "yes", "no"]


def test_json_has_the_whole_table() -> None:
    table = json.loads(CliRunner().invoke(main, ["methods", "--json"]).stdout)
    assert (table["optimizers"].keys(), table["schedules"].keys()) == (OPTIMIZERS.keys(), SCHEDULES.keys())
    table = table["methods"]
    assert set(table) == set(probed())
    assert table["hra"]["int8"].startswith("its first loss is")
    assert (table["lily"]["offered"], table["miss"]["offered"]) == (False, True)
    assert "router averages" in table["lily"]["why_not"]
    assert table["miss"]["paper"] == "2409.15371"
