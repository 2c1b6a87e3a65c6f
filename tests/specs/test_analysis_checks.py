"""What a spec asks, checked before anything is paid for: each mistake where it stands."""

from pathlib import Path

import pytest

from lorafile.errors import SpecError
from lorafile.specs.load import parse

START = """[study]
name = "s"
[model]
path = "m"
[data]
path = "d"
[evaluate]
metrics = ["log_loss"]
[[sweep]]
name = "rank"
lora.r = [8, 16]
"""


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('[[analysis]]\nkind = "compare"\nbaseline = "rank/r=9"', 'baseline: "rank/r=9" is not a configuration'),
        (
            '[[analysis]]\nkind = "compare"\nbaseline = { lora.r = 99 }',
            "has lora.r = 99; there are 8, 16",
        ),
        ('[[analysis]]\nkind = "compare"\nbaseline = { lora.rr = 8 }', '"lora.rr" does not vary in this study'),
        ('[[analysis]]\nkind = "trend"\nbaseline = "rank/r=8"', "baseline: applies to compare, not to trend"),
        ('[[analysis]]\nkind = "compare"\nwaive = ["enviroment"]', 'did you mean "environment"?'),
        (
            '[[analysis]]\nkind = "compare"\nmargin = "1pt"',
            "1pt is in percentage points, and log_loss is not a percentage",
        ),
        ('[verdict]\nmargin = "1pt"', "verdict.margin: 1pt is in percentage points"),
        ('[verdict]\nmargin = "1 point"', 'a margin such as "1pt"'),
        ('[[analysis]]\nask = "ranks"', 'did you mean "rank"?'),
    ],
)
def test_a_mistake_is_told_where_it_stands(table: str, said: str) -> None:
    with pytest.raises(SpecError) as told:
        parse(START + table, Path("study.toml"))
    assert said in str(told.value)
    assert str(told.value).startswith("study.toml:1")
