"""No private dialect in what a user or a contributor reads: messages, docs, docstrings and comments."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What was written, and what is written instead: docs/glossary.md.
DIALECT = {
    r"\bfore(told|tell|tells|telling)\b": "estimated",
    r"\b(is|are|was|were) held against\b": "compared with",
    r"\bnobody\b": "no one, or the passive",
    r"\bsomebody\b": "another process, a user",
    r"\banew\b": "again",
    r"\bnot decided\b": "inconclusive",
    r"\buntuned row\b": "untuned baseline",
    r"\bis taken for yes\b": "is accepted",
    r"\bit is told\b": "the plan says",
    r"(?<!test_)\bbeside (the|it|its|a|an)\b": "next to, in addition to",
}
FOLDERS = ("lorafile", "engine", "specs", "state", "docs", "examples")


def texts() -> list[Path]:
    """Return every file of words: code, templates, docs and examples."""
    kinds = ("*.py", "*.md", "*.html", "*.toml")
    return [
        ROOT / "README.md",
        *(file for folder in FOLDERS for kind in kinds for file in sorted((ROOT / folder).rglob(kind))),
    ]


@pytest.mark.parametrize("words", DIALECT)
def test_the_fields_words_are_used(words: str) -> None:
    pattern = re.compile(words, re.IGNORECASE)
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match[0]!r}; write {DIALECT[words]}"
        for file in texts()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)
