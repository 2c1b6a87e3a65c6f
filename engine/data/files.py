"""A file of rows: what its name says of its format, and how it is read. Imports no torch."""

import bz2
import dataclasses
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO, cast

from lorafile.errors import NodeError

_TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
FORMATS = (*_TEXTS, ".parquet", ".arrow")
SUFFIXES = (*FORMATS, *(text + packed for text in _TEXTS for packed in _COMPRESSED))
CARDS = ("README.md", ".huggingface.yaml")  # where a directory says what it holds
TABLES = (".csv", ".tsv", ".txt")
_DAMAGED = (EOFError, lzma.LZMAError, zlib.error)


@dataclass(frozen=True)
class Reading:
    """How files are read, as far as their names do not say it.

    :ivar encoding: of texts; None: UTF-8
    :ivar delimiter: of tables; None: commas in .csv (semicolons or tabs where its first line has no comma), tabs in
        .tsv, and a .txt file is no table
    :ivar column_names: of tables without a header line
    :ivar field: the name in a JSON object whose value is the rows
    :ivar where: which rows are read (see `lorafile.specs.row_filter`)
    :ivar tables: a .txt file is a table with tabs: its format is one that plain text cannot have
    :ivar builder: settings of `datasets.load_dataset` for these files, from a README.md, with the builder's `name`
    """

    encoding: str | None = None
    delimiter: str | None = None
    column_names: tuple[str, ...] = ()
    field: str | None = None
    where: Any = None
    tables: bool = False
    builder: dict[str, Any] = dataclasses.field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Return what is set, as JSON has it."""
        return {name: value for name, value in asdict(self).items() if value not in (None, (), {}, False)}


PLAIN = Reading()


@dataclass(frozen=True)
class DataFile:
    """A file of rows, or a directory of `datasets.save_to_disk`, and how it is read."""

    path: Path
    reading: Reading = PLAIN

    @property
    def suffix(self) -> str:
        """What decides how it is read: a format's suffix in lower case, perhaps with that of a compression."""
        return "" if self.path.is_dir() else suffix_of(self.path)

    @property
    def format(self) -> str:
        """The format's suffix, without that of a compression; `.arrow` of a directory, nothing where it is unknown."""
        suffix = ".arrow" if self.path.is_dir() else self.suffix
        return suffix and "." + suffix.split(".")[1]

    @property
    def delimiter(self) -> str | None:
        """What separates the columns of a table; None where the file itself says so, or it is no table."""
        tabs = self.format == ".tsv" or (self.format == ".txt" and self.reading.tables)
        return self.reading.delimiter or ("\t" if tabs else None)

    def contents(self) -> list[Path]:
        """Return the files whose bytes are its rows."""
        return sorted(self.path.glob("*.arrow")) if self.path.is_dir() else [self.path]

    def way(self) -> dict[str, Any]:
        """Return the settings that change how this very file is read."""
        settings = self.reading.settings()
        if self.format != ".txt":
            settings.pop("tables", None)
        if self.format not in TABLES or (self.format == ".tsv" and self.delimiter == "\t"):
            settings.pop("delimiter", None)
        if self.format not in TABLES:
            settings.pop("column_names", None)
        if self.format != ".json":
            settings.pop("field", None)
        if self.format in (".parquet", ".arrow"):
            settings.pop("encoding", None)
        return settings

    def as_json(self, base: Path | None = None) -> str | dict[str, Any]:
        """Return it as a request holds it, or a lock: with its path from a directory."""
        path = str(self.path.relative_to(base) if base else self.path)
        settings = self.way()
        return {"path": path, **settings} if settings else path


def data_file(written: str | Path | DataFile | dict[str, Any], base: Path = Path()) -> DataFile:
    """Return a file from how a request or a lock holds it; the reverse of `DataFile.as_json`.

    :param base: the directory of a relative path
    """
    if isinstance(written, DataFile):
        return written
    if not isinstance(written, dict):
        return DataFile(base / written)
    known = {field.name for field in fields(Reading)}
    settings = {name: value for name, value in written.items() if name in known}
    settings["column_names"] = tuple(settings.get("column_names", ()))
    return DataFile(base / written["path"], Reading(**settings))


def suffix_of(path: Path) -> str:
    """Return the suffix by which a file is read, in lower case; nothing for an unknown one."""
    name = path.name.lower()
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return suffix.replace(".ndjson", ".jsonl")


def stem_of(path: Path) -> str:
    """Return a file's name without its known suffix."""
    name = path.name.lower()
    return path.name[: -len(next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")) or None]


def unknown_suffix(path: Path) -> str:
    """Say that a file's suffix is none by which rows are read."""
    return (
        f"{path}: unknown suffix. Supported are {', '.join(FORMATS)}, and text formats compressed as "
        f"{', '.join(_COMPRESSED)}."
    )


def open_text(file: DataFile, newline: str | None = None) -> TextIO:
    """Open a text, compressed or not; without a declared encoding it is UTF-8.

    :raises NodeError: when it cannot be opened
    """
    how: dict[str, Any] = {"encoding": file.reading.encoding or "utf-8-sig", "newline": newline}
    packed = next((packed for packed in _COMPRESSED if file.suffix.endswith(packed)), "")
    try:
        if packed == ".zst":
            import pyarrow

            return io.TextIOWrapper(cast("Any", pyarrow.input_stream(str(file.path), compression="zstd")), **how)
        opens: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
        return cast("TextIO", opens.get(packed, open)(file.path, "rt", **how))
    except OSError as error:
        raise NodeError(f"{file.path}: cannot be read: {error.strerror or error}.") from error


def lines_of(stream: TextIO, file: DataFile) -> Iterator[str]:
    """Yield the lines of an open text.

    :raises NodeError: when its bytes are no text of the declared encoding, or are damaged
    """
    try:
        yield from stream
    except UnicodeError as error:
        where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        declared = file.reading.encoding
        remedy = "the encoding is set in data.encoding." if declared else 'Set its encoding: data.encoding = "…".'
        raise NodeError(f"{file.path}: is not {declared or 'UTF-8'} text{where}. {remedy.capitalize()}") from error
    except (*_DAMAGED, OSError) as error:
        raise NodeError(f"{file.path}: is damaged, or not compressed as its suffix says: {error}.") from error
