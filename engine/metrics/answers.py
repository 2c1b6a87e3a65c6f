"""Figures of written answers: exact match, SQuAD's exact match and F1, ROUGE, BLEU and chrF.

Each takes stored predictions and returns its figure, with what each example adds to it.
"""

import re
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

from lorafile.engine.metrics.classification import Rows, Scored, mean_of, pseudo_values
from lorafile.engine.metrics.extraction import same
from lorafile.engine.metrics.tokenizers import check_words, words_of

LAST_NUMBER = "last-number"
_MARK = "####"  # what stands before the result in GSM8K's answers
# A minus after a word or a bracket is a difference, not a sign.
_NUMBER = re.compile(r"((?<![\w)])-)?[$€£]?(\d{1,3}(?:,\d{3})+(?!\d)|\d+)?(\.\d+)?")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(rows: Rows, extract: str = "") -> Scored:
    """Return the share of answers that equal the reference, surrounding white space aside; for each example 0 or 1.

    :param extract: a rule of `extraction.py`, or a regular expression whose group is compared instead of the whole
        text. An answer that holds no such thing is wrong; a reference that does not hold a group is taken whole.
    """
    if extract:
        return mean_of(list(map(float, same(extract, rows))))
    return mean_of([float(row["answer"].strip() == row["reference"].strip()) for row in rows])


# As the official evaluation script of SQuAD v2 defines them (evaluate-v2.0.py), with shares of one instead of percent:
# https://worksheets.codalab.org/rest/bundles/0x6b567e1cf2e041ec80d7098f031c5c9e/contents/blob/
def squad_exact(rows: Rows) -> Scored:
    """Return the share of answers that equal an accepted one once both are normalised; for each example 0 or 1."""
    return _best(rows, lambda gold, answer: float(normalised(gold) == normalised(answer)))


def squad_f1(rows: Rows) -> Scored:
    """Return the mean F1 of each answer's words and those of the accepted answer that is nearest; for each its own."""
    return _best(rows, _words_f1)


def normalised(text: str) -> str:
    """Return a text in lower case without punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _best(rows: Rows, compare: Callable[[str, str], float]) -> Scored:
    """Return the mean over examples of the best comparison with an accepted answer, and each of them.

    A question without an answer accepts the empty text, and the phrase that the prompt asks for then is read as it.
    """
    each = []
    for row in rows:
        golds = [gold for gold in row["references"] if normalised(gold)] or [""]
        says_none = normalised(row["answer"]) == normalised(row.get("unanswerable", ""))
        each.append(max(compare(gold, "" if says_none else row["answer"]) for gold in golds))
    return mean_of(each)


def _words_f1(gold: str, answer: str) -> float:
    wanted, given = normalised(gold).split(), normalised(answer).split()
    if not wanted or not given:
        return float(wanted == given)
    return 2 * (Counter(wanted) & Counter(given)).total() / (len(wanted) + len(given))


def rouge(rows: Rows, name: str, tokenize: str = "") -> Scored:
    """Return the mean F-measure of what answer and reference share; for each example its own.

    By rouge-score without stemming, as Hugging Face's `evaluate` has it. Its own tokenizer keeps the letters a to z and
    digits alone: texts in other scripts have no words for it.

    :param name: `rouge1` (words), `rouge2` (pairs of words) or `rougeL` (the longest common subsequence of words)
    :param tokenize: the name of one of sacrebleu's tokenizers, whose words are put in lower case, as ROUGE's own are
    :raises NodeError: when a reference has no word, or the tokenizer needs what is not installed
    """
    from rouge_score.rouge_scorer import RougeScorer

    words = words_of(tokenize)
    check_words(rows, name, tokenize)
    scorer = RougeScorer([name], use_stemmer=False, tokenizer=words)
    return mean_of([float(scorer.score(row["reference"], row["answer"])[name].fmeasure) for row in rows])


def corpus_score(rows: Rows, name: str, tokenize: str = "") -> Scored:
    """Return sacrebleu's figure of the corpus (0 to 100) with its own defaults; for each example its sentence's.

    The corpus figure pools n-gram counts over all examples: it is no mean of the sentences' figures.

    :param name: `bleu` (of sentences with effective order) or `chrf` (chrF2, which has no tokenizer)
    :param tokenize: of `bleu`, the name of one of sacrebleu's tokenizers; 13a otherwise
    :raises NodeError: when BLEU would be 0 for any answer, or the tokenizer needs what is not installed
    """
    if name == "bleu":
        check_words(rows, name, tokenize or "13a")
    whole, single = _corpus_metric(name, tokenize), _corpus_metric(name, tokenize, sentences=True)
    answers, references = _texts(rows)
    each = [single.sentence_score(answer, [gold]).score for answer, gold in zip(answers, references, strict=True)]
    return float(whole.corpus_score(answers, [references]).score), each


def _corpus_metric(name: str, tokenize: str, sentences: bool = False) -> Any:
    import sacrebleu

    if name == "chrf":
        return sacrebleu.CHRF()
    return sacrebleu.BLEU(effective_order=sentences, tokenize=tokenize or None)


def corpus_influence(rows: Rows, name: str, tokenize: str = "") -> list[float]:
    """Return each example's pseudo-value; a corpus is the sum of its segments' counts, as in sacrebleu's bootstrap."""
    import numpy as np

    metric, (answers, references) = _corpus_metric(name, tokenize), _texts(rows)
    counts = np.array(metric._extract_corpus_statistics(answers, [references]))
    whole = counts.sum(axis=0)
    figure, *without = (metric._compute_score_from_stats(left.tolist()).score for left in (whole, *whole - counts))
    return pseudo_values(float(figure), map(float, without))


def _texts(rows: Rows) -> tuple[list[str], list[str]]:
    return [row["answer"] for row in rows], [row["reference"] for row in rows]
