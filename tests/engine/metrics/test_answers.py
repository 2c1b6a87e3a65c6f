"""Exact match with extraction, and SQuAD's figures, against definitions written down apart from the code."""

import collections
import re
import string
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafile.engine.metrics.extraction import last_number
from lorafile.engine.metrics.registry import METRICS

REFERENCE = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nShe sold 48+24 = <<48+24=72>>72 clips.\n#### 72"


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
        ("no number here", None),
        ("", None),
    ],
)
def test_the_last_number_of_an_answer(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))


@given(st.integers(-(10**9), 10**9), st.sampled_from(["The answer is {}.", "#### {}", "so {} in all", "x = {}\n"]))
def test_any_whole_number_is_found_with_and_without_commas(value: int, text: str) -> None:
    assert last_number(text.format(value)) == last_number(text.format(f"{value:,}")) == value


def match(answer: str, reference: str, extract: str) -> float:
    return METRICS["exact_match"].compute([{"answer": answer, "reference": reference}], extract=extract)[0]


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


# The official script, evaluate-v2.0.py, transcribed as it stands.
def normalize_answer(s: str) -> str:
    def remove_articles(text: str) -> str:
        return re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text)

    def remove_punc(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def compute_exact(a_gold: str, a_pred: str) -> int:
    return int(normalize_answer(a_gold) == normalize_answer(a_pred))


def compute_f1(a_gold: str, a_pred: str) -> float:
    gold_toks = normalize_answer(a_gold).split() if a_gold else []
    pred_toks = normalize_answer(a_pred).split() if a_pred else []
    num_same = sum((collections.Counter(gold_toks) & collections.Counter(pred_toks)).values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision, recall = 1.0 * num_same / len(pred_toks), 1.0 * num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


def official(answers: list[str], a_pred: str) -> tuple[float, float]:
    gold_answers = [a for a in answers if normalize_answer(a)] or [""]
    return max(compute_exact(a, a_pred) for a in gold_answers), max(compute_f1(a, a_pred) for a in gold_answers)


WORDS = st.lists(st.sampled_from(["the", "a", "Denver", "Broncos", "broncos!", "of", "10", "--", "é"]), max_size=6)


@given(st.lists(st.tuples(st.lists(WORDS.map(" ".join), max_size=3), WORDS.map(" ".join)), min_size=1, max_size=8))
def test_squad_figures_are_the_official_script_s(pairs: list[tuple[list[str], str]]) -> None:
    rows: list[dict[str, Any]] = [{"answer": answer, "references": golds} for golds, answer in pairs]
    expected = [official(golds, answer) for golds, answer in pairs]
    exact, each_exact = METRICS["squad_exact"].compute(rows)
    f1, each_f1 = METRICS["squad_f1"].compute(rows)
    assert each_exact == [e for e, _ in expected]
    assert each_f1 == pytest.approx([f for _, f in expected])
    assert exact == pytest.approx(sum(e for e, _ in expected) / len(rows))
    assert f1 == pytest.approx(sum(f for _, f in expected) / len(rows))


def test_a_question_without_an_answer_wants_the_phrase_for_none() -> None:
    none = {"references": [], "unanswerable": "unanswerable"}
    some = {"references": ["Denver Broncos"], "unanswerable": "unanswerable"}
    rows = [{**none, "answer": " Unanswerable."}, {**none, "answer": "Denver"}, {**some, "answer": "unanswerable"}]
    assert METRICS["squad_exact"].compute(rows)[1] == [1, 0, 0]
    assert METRICS["squad_f1"].compute(rows)[1] == [1, 0, 0]
    assert METRICS["squad_f1"].compute([{**some, "answer": "the Broncos"}])[0] == pytest.approx(2 / 3)
