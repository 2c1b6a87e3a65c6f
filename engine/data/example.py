"""A row as a model reads it: `Example`, and what makes one from a row: a template, or a chat template. No torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from lorafile.errors import NodeError

Row = dict[str, Any]


@dataclass(frozen=True)
class Example:
    """One example as text: what the model reads, and what it should write.

    :ivar reference: the answer that a greedy one is compared with; of a regression, the number
    :ivar special: whether the text already holds the tokenizer's special tokens, as a chat template's does
    :ivar turns: (start, end) of each earlier answer inside the prompt, in characters; these are supervised, too
    :ivar pair: the second of two sentences that an encoder reads, of which the prompt is the first
    :ivar about: what its predictions carry for their metrics, by name: `choices`, `references`, …
    """

    prompt: str
    completion: str
    reference: str | float
    special: bool = False
    turns: tuple[tuple[int, int], ...] = ()
    pair: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The example as one text."""
        return self.prompt + self.completion


Render = Callable[[Row], Example]


@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template.

    :ivar text: messages -> their text; the flag opens the assistant's turn
    :ivar marked: messages -> (start, end) in characters of what the template itself marks as the assistant's own
        (`{% generation %}`), or None where it marks nothing
    """

    text: Callable[[list[Any], bool], str]
    marked: Callable[[list[Any]], list[tuple[int, int]] | None] = lambda _: None

    def between(self) -> str:
        """Return what stands between an answer and the next question; nothing where the template alters them."""
        answer, question = "Zq1", "Zq2"
        turns = [("user", "Zq0"), ("assistant", answer), ("user", question)]
        text = self.text([{"role": role, "content": content} for role, content in turns], False)
        return text.partition(answer)[2].partition(question)[0] if question in text.partition(answer)[2] else ""


def placeholders(template: str) -> list[str]:
    """Return the columns that a template names, each once, in their order."""
    return list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))


def literal_beginning(template: str) -> str:
    """Return the text of a template before the first column, which all prompts begin with."""
    literal, _, _, _ = next(iter(Formatter().parse(template)), ("", None, None, None))
    return literal


def fill(template: str, row: Row) -> str:
    """Fill `{column}` places; doubled braces are braces, and a row's own text is never read as a template.

    :raises NodeError: when the row has no such column
    """
    parts = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            if name not in row:
                raise NodeError(f'data: a row has no column "{name}"; its columns are: {", ".join(map(str, row))}.')
            parts.append(str(row[name]))
    return "".join(parts)
