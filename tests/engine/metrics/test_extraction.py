"""What is compared of GSM8K's answers: as lm-evaluation-harness's task and the published rule have it."""

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafile.engine.metrics.extraction import last_number
from lorafile.engine.metrics.registry import METRICS
from lorafile.errors import NodeError

REFERENCE = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips.\n#### 72"
# What an answer does that makes it hard to read -> (answer, reference)
TRICKY: dict[str, tuple[str, str]] = {
    "plain": ("She sold 72 clips.\n#### 72", REFERENCE),
    "the reference itself": (REFERENCE, REFERENCE),
    "wrong": ("#### 71", REFERENCE),
    "empty": ("", REFERENCE),
    "white space alone": (" \n ", REFERENCE),
    "no number": ("I do not know.", REFERENCE),
    "number without the mark": ("The answer is 72.", REFERENCE),
    "number alone": ("72", REFERENCE),
    "runs on to a next question": ("#### 72\n\nQuestion: How many?\nAnswer: 3 + 4 = 7\n#### 7", REFERENCE),
    "wrong first, right in the next question": ("#### 7\n\nQuestion: How many?\nAnswer: #### 72", REFERENCE),
    "words after it": ("#### 72 clips", REFERENCE),
    "another number after it": ("#### 72 clips and 3 boxes", REFERENCE),
    "text before the mark on its line": ("So the answer is #### 72", REFERENCE),
    "no space after the mark": ("####72", REFERENCE),
    "two spaces after the mark": ("####  72", REFERENCE),
    "a tab after the mark": ("####\t72", REFERENCE),
    "a line break after the mark": ("####\n72", REFERENCE),
    "three signs": ("### 72", REFERENCE),
    "five signs": ("##### 72", REFERENCE),
    "bold": ("#### **72**", REFERENCE),
    "in brackets": ("#### (72)", REFERENCE),
    "boxed": (r"#### \boxed{72}", REFERENCE),
    "in LaTeX's dollars": ("#### $72$", REFERENCE),
    "an equation after the mark": ("#### x = 72", REFERENCE),
    "a full stop after it": ("#### 72.", REFERENCE),
    "two full stops after it": ("#### 72..", REFERENCE),
    "a comma after it": ("#### 72,", REFERENCE),
    "a line break after it": ("#### 72\n", REFERENCE),
    "a full stop and a line break": ("#### 72.\n", REFERENCE),
    "a decimal of the same value": ("#### 72.0", REFERENCE),
    "two decimals of the same value": ("#### 72.00", REFERENCE),
    "leading zero": ("#### 072", REFERENCE),
    "plus sign": ("#### +72", REFERENCE),
    "a per cent sign": ("#### 72%", REFERENCE),
    "a unit without a space": ("#### 72kg", REFERENCE),
    "a dollar sign": ("#### $18", "#### 18"),
    "a dollar sign in both": ("#### $18", "#### $18"),
    "a dollar sign behind": ("#### 18$", "#### 18"),
    "a euro sign": ("#### €18", "#### 18"),
    "thousands with a comma": ("#### 1,234", "#### 1234"),
    "thousands in the reference": ("#### 1234", "#### 1,234"),
    "thousands in both": ("#### 1,234,567", "#### 1,234,567"),
    "thousands with a space": ("#### 1 234", "#### 1234"),
    "thousands with a thin space": ("#### 1\u202f234", "#### 1234"),
    "thousands with an apostrophe": ("#### 1'234", "#### 1234"),
    "thousands with a full stop": ("#### 1.234", "#### 1234"),
    "a comma in the wrong place": ("#### 12,34", "#### 1234"),
    "a comma alone": ("#### ,", REFERENCE),
    "a full stop alone": ("#### .", REFERENCE),
    "three dots": ("#### ...", REFERENCE),
    "negative": ("#### -5", "#### -5"),
    "negative, wrongly positive": ("#### 5", "#### -5"),
    "minus of typesetting": ("#### \u22125", "#### -5"),
    "minus of typesetting in both": ("#### \u22125", "#### \u22125"),
    "an en dash": ("#### \u20135", "#### -5"),
    "a minus and a space": ("#### - 5", "#### -5"),
    "two minus signs": ("#### --5", "#### -5"),
    "a minus before a dollar": ("#### -$5", "#### -5"),
    "a minus behind a dollar": ("#### $-5", "#### -5"),
    "decimal": ("#### 0.5", "#### 0.5"),
    "decimal without a zero": ("#### .5", "#### 0.5"),
    "decimal with a comma": ("#### 0,5", "#### 0.5"),
    "a decimal that ends in zero": ("#### 2.50", "#### 2.5"),
    "a fraction": ("#### 1/2", "#### 0.5"),
    "a difference": ("The total is 75-3 = 72", REFERENCE),
    "a range": ("It is 70-72", REFERENCE),
    "a time": ("#### 7:20", "#### 7:20"),
    "an exponent": ("#### 1e3", "#### 1000"),
    "wide digits": ("#### ７２", REFERENCE),
    "Arabic digits": ("#### ٧٢", "#### ٧٢"),
    "a word for a number": ("#### seventy-two", REFERENCE),
    "right number before a wrong last one": ("72 clips, of which 36 in May", REFERENCE),
    "wrong number before the right last one": ("36 in May, 72 in all", REFERENCE),
    "a calculation at the end": ("48+24=<<48+24=72>>72", REFERENCE),
    "a calculation that is not closed": ("48+24=<<48+24=72", REFERENCE),
    "a list of numbers": ("24, 48, 72", REFERENCE),
    "a sentence that ends in a price": ("He pays $1,000.50.", "#### 1000.50"),
    "a year at the end": ("72 clips in 2024", REFERENCE),
    "upper case": ("#### 5A", "#### 5a"),
    "a reference without the mark": ("#### 72", "72"),
    "a reference without the mark, a sentence": ("#### 72", "The answer is 72"),
    "invalid": ("no number", "[invalid]"),
}


def match(answer: str, reference: str, extract: str) -> float:
    return METRICS["exact_match"].compute([{"row": 0, "answer": answer, "reference": reference}], extract=extract)[0]


@pytest.fixture(scope="module")
def harness() -> Any:
    """Return name of a filter -> (answer, reference) -> the harness's own score, from the task's own file."""
    pytest.importorskip(
        "lm_eval", reason="lm-evaluation-harness is an extra of its own: pip install 'lorafile[lm-eval]'"
    )
    from importlib.resources import files

    import yaml
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    task = yaml.safe_load((files("lm_eval") / "tasks/gsm8k/gsm8k.yaml").read_text(encoding="utf-8"))
    (metric,) = task["metric_list"]
    ignored = {name: metric[name] for name in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    assert metric["metric"] == "exact_match"

    def scorer(steps: list[dict[str, Any]]) -> Any:
        regex, first = steps
        assert (regex.pop("function"), first) == ("regex", {"function": "take_first"})
        chosen = RegexFilter(**regex)

        def score(answer: str, reference: str) -> float:
            ((taken,),) = chosen.apply([[answer]], [{}])
            return float(exact_match_fn(predictions=[taken], references=[reference], **ignored)["exact_match"])

        return score

    return {row["name"]: scorer(row["filter"]) for row in task["filter_list"]}


@pytest.mark.parametrize("extract", ["strict-match", "flexible-extract"])
@pytest.mark.parametrize("what", TRICKY)
def test_the_harness_s_filters_by_their_names(what: str, extract: str, harness: Any) -> None:
    answer, reference = TRICKY[what]
    assert match(answer, reference, extract) == harness[extract](answer, reference)


PIECES = st.lists(st.sampled_from(["#### ", "####", "-", "$", ",", ".", "7", "20", "1,000", " ", "\n", "a", "\u2212"]))


@pytest.mark.parametrize("extract", ["strict-match", "flexible-extract"])
@given(PIECES.map("".join), PIECES.map("".join))
def test_any_text_is_read_as_the_harness_reads_it(harness: Any, extract: str, answer: str, reference: str) -> None:
    assert match(answer, reference.strip(), extract) == harness[extract](answer, reference.strip())


def test_there_are_tricky_answers_of_both_kinds() -> None:
    assert len(TRICKY) >= 60
    for extract in ("strict-match", "flexible-extract", "last-number"):
        assert 10 < sum(match(*pair, extract) for pair in TRICKY.values()) < len(TRICKY) - 10


# grade_school_math/dataset.py of github.com/openai/grade-school-math, transcribed as it stands.
ANS_RE = re.compile(r"#### (\-?[0-9\.\,]+)")
INVALID_ANS = "[invalid]"


def extract_answer(completion: str) -> str:
    found = ANS_RE.search(completion)
    if found:
        match_str = found.group(1).strip()
        return match_str.replace(",", "")
    return INVALID_ANS


@pytest.mark.parametrize("what", TRICKY)
def test_the_published_rule(what: str) -> None:
    answer, reference = TRICKY[what]
    if extract_answer(reference) == INVALID_ANS:
        with pytest.raises(
            NodeError, match=r'"gsm8k" reads the number after "#### ", and this reference has none.*row 0'
        ):
            match(answer, reference, "gsm8k")
    else:
        assert match(answer, reference, "gsm8k") == float(extract_answer(answer) == extract_answer(reference))


def test_an_answer_that_runs_on_is_judged_by_its_own_number() -> None:
    assert match("so 18\n#### 18\n\nQuestion: more?\nAnswer: 20\n#### 20", "#### 18", "gsm8k") == 1
    assert match("#### 5 apples and 3 pears", "#### 5", "gsm8k") == 1


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (REFERENCE, "72"),
        ("The answer is 1,000.", "1000"),
        ("It costs $1,234,567.50 in all", "1234567.50"),
        ("so she pays $18", "18"),
        ("The total is 5-3", "3"),
        ("It fell to -7 degrees", "-7"),
        ("(12) of them", "12"),
        ("about .5", "0.5"),
        ("1.0", "1"),
        ("72.", "72"),
        ("#### 1,0", "0"),
        ("#### \u22127", "-7"),
        ("It fell to \u22127.5 degrees", "-7.5"),
        ("12\u22125", "5"),
        ("\u2212$5", "-5"),
        ("\u2013 7", "7"),
        ("no number here", None),
        ("", None),
    ],
)
def test_the_last_number_of_an_answer(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@given(st.integers(-(10**9), 10**9), st.sampled_from(["The answer is {}.", "#### {}", "so {} in all", "x = {}\n"]))
def test_any_whole_number_is_found_with_and_without_commas(value: int, text: str) -> None:
    assert last_number(text.format(value)) == last_number(text.format(f"{value:,}")) == value


def test_gsm8k_answers_are_right_when_their_last_number_is() -> None:
    assert match("She sold 48 + 24 = 72 clips", REFERENCE, "last-number") == 1
    assert match("72.0", REFERENCE, "last-number") == 1
    assert match("72 clips, or 36 each", REFERENCE, "last-number") == 0
    assert match("I do not know", REFERENCE, "last-number") == 0
    assert match("I do not know", "nor does the reference", "last-number") == 0


def test_a_regular_expression_is_applied_to_both_sides() -> None:
    extract = r"answer is (\w+)"
    assert match("I think the answer is B, perhaps", "The answer is B.", extract) == 1
    assert match("B", "The answer is B.", extract) == 0, "an answer that holds no such thing is wrong"
    assert match("the answer is B", "B", extract) == 1, "a reference that holds none is taken whole"
