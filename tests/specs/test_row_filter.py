"""`data.where`: what it says, what it is not, and which rows fulfil it."""

from typing import Any

import pytest

from lorafile.specs.row_filter import Condition, fulfils, parse_where
from lorafile.specs.tables.data import DataTable

VALUES: list[Any] = [-1, 0, "1", 2.0, "-1", None, "", float("nan")]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("label >= 0", [0, "1", 2.0]),
        ("label>0", ["1", 2.0]),
        ("label < 1.5", [-1, 0, "1", "-1"]),
        ("label <= 0", [-1, 0, "-1"]),
        ("label == 2", [2.0]),
        ('label == "2"', [2.0]),
        ("label != -1", [0, "1", 2.0]),
        ("label in [0, 1]", [0, "1"]),
        ({"label": [0, "2"]}, [0, 2.0]),
        ({"label": [0, 1, 2], "other": ["x"]}, []),
    ],
)
def test_a_missing_value_fulfils_nothing_and_numbers_are_equal_however_written(
    condition: Condition, kept: list[Any]
) -> None:
    comparisons = parse_where(condition)
    assert [value for value in VALUES if fulfils({"label": value}, comparisons)] == kept


def test_words_and_truth_values() -> None:
    rows = [{"gold label": "-", "ok": True}, {"gold label": "neutral", "ok": False}, {"gold label": "x", "ok": "true"}]

    def kept(condition: Condition) -> list[int]:
        return [number for number, row in enumerate(rows) if fulfils(row, parse_where(condition))]

    assert kept('"gold label" != "-"') == [1, 2]
    assert kept({"gold label": ["x", "neutral"]}) == [1, 2]
    assert kept("ok == true") == [0, 2]
    with pytest.raises(ValueError, match=r'gold label is "-", which is not a number'):
        kept('"gold label" > 3')


@pytest.mark.parametrize(
    "condition",
    [
        "label",
        "label => 0",
        "label >= x",
        'label > "a"',
        "label > true",
        "label in 3",
        "label in []",
        "label == [1]",
        "label in [[1]]",
        "__import__('os').system('true')",
        "label >= 0 and label < 2",
        "",
        {"label": []},
        {"label": [[1]]},
        {},
    ],
)
def test_what_is_no_comparison_is_refused(condition: Condition) -> None:
    with pytest.raises(ValueError, match="where"):
        DataTable.model_validate({"path": "x", "where": condition})
