"""Words for ROUGE and BLEU: rouge-score's own tokenizer, or one of sacrebleu's by its name (`evaluate.tokenize`)."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from lorafile.engine.metrics.classification import Rows
from lorafile.errors import NodeError

LIBRARIES = {
    "ja-mecab": ("MeCab", "sacrebleu[ja]"),
    "ko-mecab": ("mecab_ko", "sacrebleu[ko]"),
    **dict.fromkeys(("spm", "flores101", "flores200"), ("sentencepiece", "sentencepiece")),
}
# How many words in a row a metric counts: where no reference has so many, a right answer is scored 0.
_LEAST = {"bleu": 4, "rouge2": 2}
_READ = 0.25  # the share of a reference's letters that have to be in words: of Vietnamese a to z are well over a half
# Scripts that put no spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han. What does not know a script makes one
# word of a whole sentence.
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]{2}")
_AT_SPACES = ("13a", "intl", "none", "zh")


class Words:
    """One of sacrebleu's tokenizers, in the shape of rouge-score's `Tokenizer`."""

    def __init__(self, name: str) -> None:
        self._tokenizer = _sacrebleu_tokenizer(name)

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text in lower case."""
        return self._tokenizer(text.lower()).split()


def words_of(name: str) -> Words | None:
    """Return what splits texts for rouge-score; None leaves it to its own tokenizer.

    :raises NodeError: when the tokenizer needs what is not installed, or cannot be fetched
    """
    return Words(name) if name else None


def check_words(rows: Rows, metric: str, name: str) -> None:
    """Check that what an answer is compared with has words; an empty reference has none for any tokenizer.

    :param name: of a tokenizer of sacrebleu's; empty: rouge-score's own
    :raises NodeError: naming the first row without any, or where no reference has as many in a row as the metric counts
    """
    split, longest = _split(name), 0
    for row in rows:
        text = row["reference"]
        words = [word for word in split(text) if name not in _AT_SPACES or not _SPACELESS.search(word)]
        longest = max(longest, len(words))
        if text.strip() and (not words or _letters("".join(words)) < _READ * _letters(text)):
            raise NodeError(
                f"evaluate.metrics: {metric} finds few or no words in the reference of row {row.get('row')} "
                f"({_shown(text)}) with {_named(name)}. {_remedy(text)}"
            )
    if 0 < longest < _LEAST.get(metric, 1):
        raise NodeError(
            f"evaluate.metrics: {metric} counts {_LEAST[metric]} words in a row, and the longest reference has "
            f"{longest} with {_named(name)}, so that a right answer would be scored 0. Use chrf or rouge1, or set "
            'evaluate.tokenize = "char".'
        )


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _split(name: str) -> Callable[[str], list[str]]:
    if name:
        tokenizer = _sacrebleu_tokenizer(name)
        return lambda text: tokenizer(text).split()
    from rouge_score.tokenize import tokenize

    return lambda text: list(tokenize(text, None))


@cache
def _sacrebleu_tokenizer(name: str) -> Callable[[str], str]:
    from sacrebleu.metrics.bleu import _get_tokenizer

    try:
        tokenizer: Any = _get_tokenizer(name)()
    except (
        Exception,
        SystemExit,
    ) as error:  # sacrebleu exits where it cannot fetch a file
        library = LIBRARIES.get(name, ("", ""))[1]
        remedy = f" Install it with: pip install '{library}'" if library else ""
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise NodeError(f'evaluate.tokenize: "{name}" cannot be loaded: {why}{remedy}') from error
    return tokenizer  # type: ignore[no-any-return]


def _named(name: str) -> str:
    return f'the tokenizer "{name}"' if name else "rouge-score's own tokenizer, which keeps only a to z and digits"


def _remedy(text: str) -> str:
    """Return which setting has words for a text."""
    if _SPACELESS.search(text):
        return 'Set evaluate.tokenize to "zh" for Chinese, "ja-mecab" for Japanese, or "char" for any script.'
    return 'Set evaluate.tokenize to "intl", which splits any script at spaces and punctuation, or to "char".'


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return f'"{text[:40]}…"' if len(text) > 40 else f'"{text}"'
