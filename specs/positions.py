"""Where each key and each element of a TOML document stands.

TOML parsers say nothing about positions, and a message without a line is half a message. This scanner reads a document
that a parser has already accepted, so it only has to find keys, never to judge syntax.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, field

import tomli

Path = tuple[str | int, ...]
Position = tuple[int, int]
MAX_PLACES = 100_000  # a Python loop over more of them would look like a program that hangs

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]+")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"""{1,3}', re.DOTALL),
    re.compile(r"'''.*?'''{1,3}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


class TooManyPlaces(ValueError):
    """A document has more settings and values than a person means to be read; `line` says where that many are."""

    def __init__(self, line: int, column: int) -> None:
        self.line, self.column = line, column
        super().__init__(f"holds more than {MAX_PLACES:,} settings and values, too many for a spec")


@dataclass
class _Scanner:
    text: str
    at: int = 0
    offsets: dict[Path, int] = field(default_factory=dict)
    tables: dict[Path, int] = field(default_factory=dict)  # array of tables -> index of its newest member

    def document(self) -> None:
        table: Path = ()
        while self.blank():
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def blank(self) -> bool:
        """Skip white space and comments; return whether anything is left."""
        while self.at < len(self.text):
            if self.text[self.at] in " \t\r\n":
                self.at += 1
            elif self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def header(self) -> Path:
        start = self.at
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        path: Path = ()
        keys = self.keys()
        for key, _ in keys[:-1]:
            path = self.newest((*path, key))
        path = (*path, keys[-1][0])
        self.at = self.text.index("]", self.at) + (2 if many else 1)
        if many:
            self.tables[path] = self.tables.get(path, -1) + 1
            self.offsets.setdefault(path, start)
            path = self.newest(path)
        self.offsets[path] = start
        return path

    def newest(self, path: Path) -> Path:
        return (*path, self.tables[path]) if path in self.tables else path

    def keys(self) -> list[tuple[str, int]]:
        """Read a dotted key: its parts and where each begins."""
        parts = []
        while True:
            self.blank()
            start = self.at
            parts.append((self.key(), start))
            self.blank()
            if self.at >= len(self.text) or self.text[self.at] != ".":
                return parts
            self.at += 1

    def key(self) -> str:
        if self.text[self.at] in "\"'":
            raw = self.string()
            return str(tomli.loads(f"key = {raw}")["key"]) if "\\" in raw else raw[1:-1]
        match = _BARE.match(self.text, self.at)
        self.at = match.end() if match else self.at + 1
        return match.group() if match else ""

    def pair(self, table: Path) -> None:
        path = table
        for key, start in self.keys():
            path = (*path, key)
            self.offsets.setdefault(path, start)
        self.blank()
        self.at += 1  # "="
        self.value(path)

    def value(self, path: Path) -> None:
        if len(self.offsets) > MAX_PLACES:
            before = self.text[: self.at]
            raise TooManyPlaces(before.count("\n") + 1, self.at - before.rfind("\n"))
        self.blank()
        opening = self.text[self.at]
        if opening in "\"'":
            self.string()
        elif opening in "[{":
            self.at += 1
            self.members(path, opening == "[")
        else:
            match = _SCALAR.match(self.text, self.at)
            self.at = match.end() if match else self.at + 1

    def members(self, path: Path, array: bool) -> None:
        """Read what stands between brackets: the elements of an array, or the pairs of an inline table."""
        index = 0
        while self.blank() and self.text[self.at] not in "]}":
            if array:
                self.offsets.setdefault((*path, index), self.at)
                self.value((*path, index))
                index += 1
            else:
                self.pair(path)
            self.blank()
            if self.at < len(self.text) and self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def string(self) -> str:
        for pattern in _STRINGS:
            match = pattern.match(self.text, self.at)
            if match:
                self.at = match.end()
                return match.group()
        raise AssertionError("the parser accepted a string that does not end")


def positions(text: str) -> dict[Path, Position]:
    """Return path -> (line, column), both from 1, for each key, table and array element of a valid TOML document.

    :raises TooMany: where there are more than a spec has
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    starts = [0, *(match.end() for match in re.finditer("\n", scanner.text))]
    lines = {path: bisect_right(starts, offset) for path, offset in scanner.offsets.items()}
    return {path: (line, scanner.offsets[path] - starts[line - 1] + 1) for path, line in lines.items()}


def locate(places: dict[Path, Position], path: Path) -> Position:
    """Return the position of a path, or of the nearest thing that encloses it."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return 1, 1
