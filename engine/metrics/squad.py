"""Exact match and F1 of extracted answers, as the official evaluation script of SQuAD v2 defines them.

https://worksheets.codalab.org/rest/bundles/0x6b567e1cf2e041ec80d7098f031c5c9e/contents/blob/ (evaluate-v2.0.py), with
shares of one instead of percent.
"""

import re
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_exact(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the share of answers that equal an accepted one once both are normalised; for each example 0 or 1."""
    return _best(rows, lambda gold, answer: float(normalised(gold) == normalised(answer)))


def squad_f1(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the mean F1 of each answer's words and those of the accepted answer that is nearest; for each its own."""
    return _best(rows, _words_f1)


def normalised(text: str) -> str:
    """Return a text in lower case without punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _best(rows: list[dict[str, Any]], compare: Callable[[str, str], float]) -> tuple[float, list[float]]:
    """Return the mean over examples of the best comparison with an accepted answer, and each of them.

    A question without an answer accepts the empty text, and the phrase that the prompt asks for then is read as it.
    """
    each = []
    for row in rows:
        golds = [gold for gold in row["references"] if normalised(gold)] or [""]
        says_none = normalised(row["answer"]) == normalised(row.get("unanswerable", ""))
        each.append(max(compare(gold, "" if says_none else row["answer"]) for gold in golds))
    return sum(each) / len(each), each


def _words_f1(gold: str, answer: str) -> float:
    wanted, given = normalised(gold).split(), normalised(answer).split()
    if not wanted or not given:
        return float(wanted == given)
    return 2 * (Counter(wanted) & Counter(given)).total() / (len(wanted) + len(given))
