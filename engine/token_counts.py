"""Token counts for estimates, by the library tokenizers alone: a plan asks for them, and loads nothing heavier."""

from collections.abc import Iterable
from pathlib import Path


def count_tokens(tokenizer: Path, texts: Iterable[str]) -> int:
    """Return how many tokens a tokenizer.json makes of some texts; 0 where that cannot be said here."""
    try:
        from tokenizers import Tokenizer

        own = Tokenizer.from_file(str(tokenizer))
        own.no_padding()  # a file may say that every text is padded to 128 tokens, or cut to them
        own.no_truncation()
        return sum(len(one.ids) for one in own.encode_batch(list(texts)))
    except Exception:  # no such library, or its bare exception for a file that it cannot read
        return 0
