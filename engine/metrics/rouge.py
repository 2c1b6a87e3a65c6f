"""ROUGE, by rouge-score without stemming, as Hugging Face's `evaluate` has it: means of the examples' F-measures.

Its tokenizer keeps the letters a to z and digits alone: texts in other scripts have no words for it.
"""

from typing import Any


def rouge1(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the mean F-measure of single words that answer and reference share; for each example its own."""
    return _scored("rouge1", rows)


def rouge2(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the mean F-measure of pairs of words that answer and reference share; for each example its own."""
    return _scored("rouge2", rows)


def rouge_l(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the mean F-measure of the longest common subsequence of words; for each example its own."""
    return _scored("rougeL", rows)


def _scored(name: str, rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], use_stemmer=False)
    each = [float(scorer.score(row["reference"], row["answer"])[name].fmeasure) for row in rows]
    return sum(each) / len(each), each
