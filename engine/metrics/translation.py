"""BLEU and chrF, by sacrebleu with its own defaults, so that the figures compare with published ones."""

from typing import Any

from lorafile.engine.metrics.jackknife import pseudo_values


def bleu(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the corpus BLEU (0 to 100; tokenizer 13a); for each example its sentence BLEU, with effective order.

    The corpus figure pools n-gram counts over all examples: it is no mean of the sentences' figures.
    """
    from sacrebleu import corpus_bleu, sentence_bleu

    answers, references = _texts(rows)
    each = [sentence_bleu(answer, [gold]).score for answer, gold in zip(answers, references, strict=True)]
    return float(corpus_bleu(answers, [references]).score), each


def chrf(rows: list[dict[str, Any]]) -> tuple[float, list[float]]:
    """Return the corpus chrF2 (0 to 100); for each example its sentence chrF. No mean of them either."""
    from sacrebleu import corpus_chrf, sentence_chrf

    answers, references = _texts(rows)
    each = [sentence_chrf(answer, [gold]).score for answer, gold in zip(answers, references, strict=True)]
    return float(corpus_chrf(answers, [references]).score), each


def bleu_influence(rows: list[dict[str, Any]]) -> list[float]:
    """Return each example's influence on the corpus BLEU."""
    from sacrebleu import BLEU

    return _influence(BLEU, rows)


def chrf_influence(rows: list[dict[str, Any]]) -> list[float]:
    """Return each example's influence on the corpus chrF."""
    from sacrebleu import CHRF

    return _influence(CHRF, rows)


def _influence(kind: Any, rows: list[dict[str, Any]]) -> list[float]:
    """Return each example's pseudo-value; a corpus is the sum of its segments' counts, as in sacrebleu's bootstrap."""
    import numpy as np

    metric, (answers, references) = kind(), _texts(rows)
    counts = np.array(metric._extract_corpus_statistics(answers, [references]))
    whole = counts.sum(axis=0)
    figure, *without = (
        float(metric._compute_score_from_stats(left.tolist()).score) for left in (whole, *whole - counts)
    )
    return pseudo_values(figure, without)


def _texts(rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    return [row["answer"] for row in rows], [row["reference"] for row in rows]
