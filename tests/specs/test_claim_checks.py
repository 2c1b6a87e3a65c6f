import re
from pathlib import Path

import pytest

from lorafile.errors import SpecError
from lorafile.specs import Spec
from lorafile.specs.load import parse
from lorafile.specs.values import in_base_units

SPEC = """
study.name = "s"
model.path = "m"
data.path = "d"
evaluate.metrics = ["exact_match", "log_loss"]
[[sweep]]
name = "rank"
lora.r = [4, 16]
[[analysis]]
kind = "compare"
name = "ranks"
[[analysis]]
kind = "pareto"
name = "front"
"""
CLAIM = '[[claim]]\ntext = "so"\none = "rank/r=4"\n'
PAIR = CLAIM + 'other = "rank/r=16"\n'
PUBLISHED = '[[reference]]\nname = "LoRA"\nvalue = 0.478\nsource = "a paper"\n'


def spec(text: str) -> Spec:
    return parse(SPEC + text, Path("s.toml"))


@pytest.mark.parametrize(
    "text",
    [
        PAIR + 'is = "better"',
        PAIR + 'is = "equivalent"\nmargin = "1pt"',
        PAIR + 'is = "equivalent"\n[verdict]\nmargin = "1pt"',
        PAIR + 'is = "better"\nanalysis = "ranks"',
        PAIR + 'at_most_below = "3pt"\ntrainable_share = 0.003\ntrain_memory = "8GB"',
        CLAIM + "at_least = 0.5\nmetric = 'log_loss'",
        PUBLISHED
        + 'n = 1319\ncosts = { train_memory = "22.3GB", trainable_parameters = 9e6 }\nsettings = { lora.r = 32 }',
    ],
)
def test_claims_and_published_figures_as_people_write_them(text: str) -> None:
    assert spec(text).configurations


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CLAIM, "s.toml:15:1: claim[0]: has no condition to check"),
        (CLAIM.replace("r=4", "r=5") + "at_most = 1.0", 's.toml:17:1: claim[0].one: "rank/r=5" is not a configuration'),
        (CLAIM.replace("r=4", "r=5") + "at_most = 1.0", 'did you mean "rank/r=4"?'),
        (PAIR, "claim[0].other: needs a comparison"),
        (CLAIM + 'is = "better"', "claim[0].is: needs other"),
        (CLAIM + 'other = "rank/r=4"\nis = "better"', "claim[0].other: is the same configuration as `one`"),
        (PAIR + 'is = "equivalent"', 'claim[0].is: "equivalent" needs a margin'),
        (PAIR + 'is = "better"\nmargin = "1pt"', 'claim[0].margin: applies only to is = "equivalent"'),
        (PAIR + 'is = "better"\nat_most_below = "3pt"', "claim[0].at_most_below: is set together with is"),
        (PAIR + 'is = "beter"', 'did you mean "better"?'),
        (PAIR + 'is = "better"\nanalysis = "rank"', 'no [[analysis]] is named "rank"; did you mean "ranks"?'),
        (PAIR + 'is = "better"\nanalysis = "front"', '"front" is not a comparison'),
        (PAIR + 'is = "better"\nanalysis = "ranks"\nmetric = "log_loss"', "claim[0].metric: is set by the analysis"),
        (CLAIM + 'at_least = 1.0\nmetric = "bleu"', 'claim[0].metric: "bleu" is not among evaluate.metrics'),
        (CLAIM + "at_least = 0.9\nat_most = 0.1", "claim[0].at_least: is more than at_most = 0.1"),
        (CLAIM + 'train_memory = "8s"', 'claim[0].train_memory: should be a size such as "24GB" or "7.5GiB", not "8s"'),
        (
            CLAIM + 'token_latency = "8GB"',
            'claim[0].token_latency: should be a time such as "30ms", "90s" or "2h", not "8GB"',
        ),
        (PAIR + 'at_most_below = "3pt"\nmetric = "log_loss"', "claim[0].at_most_below: 3pt is in percentage points"),
        (2 * (CLAIM + "at_least = 0.5\n"), "claim[1].text: appears in two claims"),
        ('[claim]\ntext = "so"', "should be written as blocks that start with [[claim]]"),
        (PUBLISHED + 'metric = "bleu"', 'reference[0].metric: "bleu" is not among evaluate.metrics'),
        (PUBLISHED + 'costs = { train_memory = "3s" }', "reference[0].costs.train_memory: should be bytes"),
        (PUBLISHED + "costs = { train_memory = 3.0 }", "reference[0].costs.train_memory: needs a unit"),
        ("[[analysis]]\nkind = 'own'", '"own" needs file = "analyses/own.py"'),
    ],
)
def test_a_mistake_is_told_where_it_stands(text: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(text)
    assert told in str(caught.value)


def test_an_alias_names_its_configuration() -> None:
    other = '[[sweep]]\nname = "again"\nlora.r = [16]\n'
    assert spec(other + CLAIM + 'other = "again/r=16"\nis = "better"').tables.claim[0].other == "again/r=16"


@pytest.mark.parametrize(
    ("amount", "dimension", "value"),
    [("24GB", "bytes", 24e9), ("1.5 GiB", "bytes", 1.5 * 2**30), ("30ms", "seconds", 0.03), ("2h", "seconds", 7200)],
)
def test_amounts_are_decimal_bytes_and_seconds(amount: str, dimension: str, value: float) -> None:
    assert in_base_units(amount) == (dimension, pytest.approx(value))


def test_the_examples_of_the_documentation_are_good_specs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reporting.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "own.py" not in block]
    blocks = [block for block in blocks if "registered" not in block]
    assert len(blocks) == 2
    full = '[[sweep]]\nname = "baselines"\nmethod = ["full"]\n'
    assert len(spec(full + "".join(blocks)).tables.claim) == 2
