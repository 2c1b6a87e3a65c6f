"""Which rows are for what: never silently the first list, a tenth of train, or a mixture."""

from typing import Any

import pytest

from lorafile.graph.splits import Rows, draw
from lorafile.specs.tables.data import SplitTable

MNLI = {"train": 100, "validation_matched": 10, "validation_mismatched": 10}


def drawn(available: dict[str, int], **table: Any) -> dict[str, Rows]:
    return draw(SplitTable(**table), 0, available)


@pytest.mark.parametrize(
    ("available", "table", "message"),
    [
        ({"de": 20, "en": 20}, {}, "the data have de, en, but none is named train"),
        ({"de": 20, "en": 20}, {"test": 5}, "none is named train"),
        ({"test": 20, "validation": 20}, {}, "none is named train"),
        ({"test": 20}, {}, "the data have only test"),
        (MNLI, {}, r"several splits for validation \(validation_matched, validation_mismatched\)"),
        (MNLI, {"train": 10, "test": 5}, "several splits for validation"),
        ({"train_sft": 9, "train_gen": 9, "test": 9, "validation": 9}, {}, "several splits for train"),
        ({"de": 20, "en": 20}, {"train": "fr"}, 'train needs the split "fr", but the data have: de, en'),
    ],
)
def test_what_could_mean_several_splits_is_refused(
    available: dict[str, int], table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        drawn(available, **table)


@pytest.mark.parametrize(
    ("available", "table", "sources"),
    [
        ({"de": 20, "en": 20}, {"train": "de", "test": "en"}, ["de", "en"]),
        ({"de": 20, "en": 20}, {"train": "de[:50%]", "test": "en"}, ["de", "en"]),
        (MNLI, {"train": "train[:95%]", "validation": "train[95%:]", "test": "validation_mismatched"}, None),
        ({"train_sft": 20, "test_sft": 5}, {}, ["train_sft", "train_sft", "test_sft"]),
        ({"train_sft": 20, "test_sft": 5}, {"train": "train[:5]", "validation": "train[5:]"}, None),
        ({"train": 20, "test": 5, "unsupervised": 9}, {}, ["train", "train", "test"]),
        ({"rows": 20}, {}, ["rows", "rows", "rows"]),
    ],
)
def test_what_the_data_or_the_spec_name_is_taken(
    available: dict[str, int], table: dict[str, Any], sources: list[str] | None
) -> None:
    splits = drawn(available, **table)
    if sources is not None:
        assert [rows.source for rows in splits.values()] == sources
    assert all(rows.count for rows in splits.values())
