"""What a terminal is shown: control characters in a spec, in data or in a state are printed, and never obeyed."""

import re
import shutil
import sys
from itertools import pairwise

import click

from lorafile.errors import LoraError

# Control characters, those that turn the direction of text, and halves of characters, which no terminal takes.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ENDLESS = re.compile(r"\S{2000,}")
_WORD = re.compile(r"\S+\s*|^\s+")
_BEGINNING = 200


def printable(text: str) -> str:
    """Return a text with its control characters as JSON writes them; JSON stays the same JSON."""
    return text if text.isprintable() else _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def breaks(text: str, width: int) -> list[int]:
    """Return where lines of at most so many characters begin, the first one left out; no word is ever cut."""
    starts, used = [], 0
    for word in _WORD.finditer(text):
        if used and used + len(word[0].rstrip()) > width:
            starts.append(word.start())
            used = 0
        used += len(word[0])
    return starts


def echo(text: str = "", err: bool = False, nl: bool = True) -> None:
    """Print a text as it is."""
    click.echo(printable(text), err=err, nl=nl)


def say(text: str, err: bool = False) -> None:
    """Print sentences; on a terminal they wrap at words."""
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(part for line in text.split("\n") for part in _parts(line, width))
    echo(text, err=err)


def _parts(line: str, width: int) -> list[str]:
    starts = [0, *breaks(line, width), len(line)]
    return [line[start:end].rstrip() for start, end in pairwise(starts)]


def echo_error(text: str) -> None:
    """Print what went wrong; of a word without end, a path of a megabyte among them, only the beginning."""
    say(_ENDLESS.sub(lambda match: match[0][:_BEGINNING] + "…", text), err=True)


def agreed(yes: bool, question: str) -> bool:
    """Ask, unless the answer is given already.

    :raises LoraError: when there is no terminal to ask at
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise LoraError("Standard input is not a terminal, so the plan cannot be approved here. Pass --yes.")
    if input(f"{question} Only 'yes' is accepted: ").strip() == "yes":
        return True
    say("Nothing was done.")
    return False
