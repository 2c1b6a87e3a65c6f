"""Print sentences that a user can meet, to be read aloud: 20 each from commands, docs and reports, drawn by the commit.

python tests/words/sample.py [--each 20] [--seed TEXT]
"""

import argparse
import ast
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "commands": (
        "lorafile/cli",
        "lorafile/apply",
        "lorafile/plan",
        "lorafile/lock",
        "lorafile/study",
        "specs",
        "state",
    ),
    "docs": ("docs", "README.md", "examples"),
    "report": ("lorafile/analysis", "lorafile/report", "lorafile/results"),
}
_SHORTEST = 6  # words of a sentence that can be judged


def literals(file: Path) -> Iterator[str]:
    """Yield the messages of a Python file, with `…` for what is filled in, and the docstrings of commands."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documents = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            helps = isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(d) for d in node.decorator_list)
            if node.body and isinstance(node.body[0], ast.Expr):
                if helps:
                    yield ast.get_docstring(node) or ""
                documents.add(node.body[0].value)
    parts = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {node} & (documents | parts):
            yield node.value


def prose(text: str) -> Iterator[str]:
    """Yield the paragraphs of Markdown: no code, tables or headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=[-*|#] )", text):
        if not block.lstrip().startswith(("|", "#", "<", "![", "{")):
            yield re.sub(r"^[-*\d.]+ ", "", block.strip())


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text."""
    for sentence in re.split(r"(?<=[.?!]) (?=[A-Z`])", " ".join(text.split())):
        words = sentence.split()
        whole = len(words) >= _SHORTEST and sentence[0].isupper() and sentence[-1] in ".?!:"
        if whole and not {"SELECT", "FROM"} & set(words):  # no SQL
            yield sentence


def all_sentences(place: str) -> list[str]:
    """Return every sentence of a place, each once, in order."""
    found: dict[str, None] = {}
    for name in PLACES[place]:
        root = ROOT / name
        files = [root] if root.is_file() else sorted((*root.rglob("*.py"), *root.rglob("*.md")))
        for file in files:
            texts = literals(file) if file.suffix == ".py" else prose(file.read_text(encoding="utf-8"))
            found |= dict.fromkeys(sentence for text in texts for sentence in sentences(text))
    return list(found)


def main() -> None:
    """Print the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--seed", help="by default the commit's hash")
    options = parser.parse_args()
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    seed = options.seed or subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    print(f"seed: {seed}")
    for place in PLACES:
        everything = all_sentences(place)
        print(f"\n{place} ({len(everything)} sentences)")
        for sentence in random.Random(f"{seed}{place}").sample(everything, min(options.each, len(everything))):
            print(f"- {sentence}")


if __name__ == "__main__":
    main()
