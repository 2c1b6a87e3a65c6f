"""docs/coverage.md: every name of the language has a row, and every row names a test that exists."""

import re
from pathlib import Path
from typing import get_args

import pytest
from architectures_fixture import ARCHITECTURES
from coverage_table_fixture import TITLES, read_table

from lorafile.specs.reference import with_methods
from lorafile.specs.tables.data import Format
from lorafile.specs.tables.evaluate import MetricName
from lorafile.specs.tables.methods import MethodName
from lorafile.specs.tables.quantizations import Method as Quantizer
from lorafile.specs.tables.quantizations import QuantizationName

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
NAMES = {
    "Methods": get_args(MethodName),
    "Bases": (*get_args(QuantizationName), *(f'quant_method = "{name}"' for name in get_args(Quantizer)[1:])),
    "Data": get_args(Format),
    "Metrics": get_args(MetricName),
}


@pytest.mark.parametrize("title", NAMES)
def test_every_name_has_a_row_with_a_test(title: str) -> None:
    section = next(part for part in TEXT.split("\n## ") if part.startswith(title))
    rows = {row.split("|")[1].strip(): row for row in section.splitlines() if row.startswith("| `")}
    for name in NAMES[title]:
        assert re.search(r"`tests/\S+/test_", rows.get(f"`{name}`", "")), f"{name} has no row with a test under {title}"


def test_the_methods_are_those_of_the_table() -> None:
    assert with_methods(TEXT) == TEXT, "python -m lorafile.specs.reference docs/spec-reference.md docs/coverage.md"


@pytest.mark.parametrize("test", sorted(set(re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", TEXT))))
def test_the_test_of_a_row_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), test


def test_every_architecture_has_a_row_and_nothing_else() -> None:
    table = read_table()
    assert list(table) == list(ARCHITECTURES)
    assert all(tuple(cells) == TITLES and all(cells.values()) for cells in table.values())
    assert len(table) >= 45
