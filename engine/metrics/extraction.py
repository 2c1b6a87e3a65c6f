"""What `exact_match` compares instead of whole texts (`evaluate.extract`): a rule by its name, or a pattern's group.

A rule is applied to an answer and to its reference, and says whether both are the same.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from lorafile.engine.data.example import REASONING
from lorafile.engine.metrics.classification import Rows
from lorafile.errors import NodeError
from lorafile.specs.bounded_regex import matches
from lorafile.specs.tables.evaluate import EXTRACTIONS

_MARK = "####"  # what stands before the result in GSM8K's answers
# A minus after a word or a bracket is a difference, not a sign; U+2212 is the minus of typesetting.
_NUMBER = re.compile(r"((?<![\w)])[-\u2212])?[$€£]?(\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(\.\d+)?")
# extract_answer of github.com/openai/grade-school-math (grade_school_math/dataset.py).
_MARKED = re.compile(r"#### (\-?[0-9\.\,]+)")
# lm-evaluation-harness 0.4.13, lm_eval/tasks/gsm8k/gsm8k.yaml, version 3.0: the filter, and what the metric ignores.
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = tuple(map(re.compile, (",", r"\$", r"(?s).*#### ", r"\.$")))
_INVALID = "[invalid]"
VERSIONS = {"last-number": 2}  # raised when what a rule takes can change; the others are 1


def without_reasoning(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose answer and reference are what follows the reference's block of reasoning, if it has one."""
    texts = {name: row[name] for name in ("answer", "reference") if isinstance(row.get(name), str)}
    end = next((end for end in REASONING if end in texts.get("reference", "")), None)
    return row if end is None else row | {name: text.rpartition(end)[2].strip() for name, text in texts.items()}


def same(extract: str, rows: Rows) -> list[bool]:
    """Return for each row whether what a rule takes of its answer is what it takes of its reference.

    :param extract: a name of `EXTRACTIONS`, or a regular expression with one group
    :raises NodeError: when the pattern takes too long, or a reference has no number where the rule needs one
    """
    if extract in _RULES:
        return [_by_rule(extract, row) for row in rows]
    taken = _groups(extract, [row[part] for part in ("answer", "reference") for row in rows])
    return [
        answer is not None and answer == (row["reference"].strip() if wanted is None else wanted)
        for answer, wanted, row in zip(taken[: len(rows)], taken[len(rows) :], rows, strict=True)
    ]


def _by_rule(extract: str, row: dict[str, Any]) -> bool:
    try:
        return _RULES[extract](row["answer"], row["reference"])
    except NodeError as error:
        raise NodeError(f"{error} (row {row.get('row')})") from error


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, after the last `####` where there is one: $1,000.00 is 1000, 1.0 is 1."""
    numbers = [match for match in _NUMBER.finditer(text.rpartition(_MARK)[2]) if match[2] or match[3]]
    if not numbers:
        return None
    sign, whole, rest = numbers[-1].groups(default="")
    return Decimal(f"{'-' if sign else ''}{whole.replace(',', '') or '0'}{rest}")


def _last_number(answer: str, reference: str) -> bool:
    """An answer that holds no number is wrong; a reference that holds none equals no number."""
    number = last_number(answer)
    return number is not None and number == last_number(reference)


def _gsm8k(answer: str, reference: str) -> bool:
    """GSM8K's own rule: what follows the first `#### `, as text without commas, so that 18.0 is not 18.

    :raises NodeError: for a reference without it, as the published script does
    """
    given, wanted = _MARKED.search(answer), _MARKED.search(reference)
    if wanted is None:
        raise NodeError(
            f'evaluate.extract: "gsm8k" reads the number after "#### ", and this reference has none: '
            f'{_short(reference)}. Set evaluate.extract = "last-number", or a regular expression.'
        )
    return given is not None and given[1].replace(",", "") == wanted[1].replace(",", "")


def _strict_match(answer: str, reference: str) -> bool:
    found = _MARKED.search(answer)
    return _alike(found[1] if found else _INVALID, reference)


def _flexible_extract(answer: str, reference: str) -> bool:
    found = _FLEXIBLE.findall(answer)
    return _alike(next(filter(None, found[-1])) if found else _INVALID, reference)


def _alike(given: str, wanted: str) -> bool:
    """Compare as lm-evaluation-harness's exact_match does: without what its task ignores, in lower case."""
    wanted = wanted.strip()  # the space that a template puts before an answer is ours
    for pattern in _IGNORED:
        given, wanted = pattern.sub("", given), pattern.sub("", wanted)
    return given.lower() == wanted.lower()


_RULES: dict[str, Callable[[str, str], bool]] = dict(
    zip(EXTRACTIONS, (_gsm8k, _strict_match, _flexible_extract, _last_number), strict=True)
)


def _groups(pattern: str, texts: list[str]) -> list[str | None]:
    """Return the group of the first match in each text, without white space around.

    :raises NodeError: when the pattern takes too long
    """
    try:
        return [None if group is None else group.strip() for group in matches(pattern, tuple(texts), "search")]
    except ValueError as error:
        raise NodeError(f"evaluate.extract {error}.") from error


def _short(text: str) -> str:
    return f'"{text if len(text) <= 60 else f"{text[:60]}…"}"'
