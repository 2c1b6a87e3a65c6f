"""Where models and data are on this machine, and the rows of a data file. Imports no torch, so that a plan can ask."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from lorafile.engine.hub import DATA_SUFFIXES, snapshot
from lorafile.errors import NodeError

BUILTIN = "builtin:"
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json")
_SPLIT_WORDS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "eval": "test",
    "evaluation": "test",
}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def find_model(path: str, revision: str | None, base: Path, download: bool = True) -> Path:
    """Return the directory of a model: built in, local (relative to the spec's directory), or a hub snapshot.

    :raises NodeError: when there is no such model, or the hub cannot be asked
    """
    directory = _builtin(path) or _local(path, base)
    if directory is None:
        directory = snapshot(path, "model", revision, download)
    if not (directory / "config.json").is_file():
        raise NodeError(f"model.path: {directory} holds no config.json, so it is not a transformers model.")
    return directory


def find_data(path: str, revision: str | None, base: Path, download: bool = True) -> Path:
    """Return the file or directory of a data set: built in, local, or a hub snapshot."""
    return _builtin(path) or _local(path, base) or snapshot(path, "dataset", revision, download)


def data_files(where: Path, name: str | None = None) -> dict[str, list[Path]]:
    """Return split -> its files; a single file is the split `train`.

    :param name: the configuration of a data set that keeps each in a directory of its own
    :raises NodeError: when nothing readable is there
    """
    if where.is_file():
        return {"train": [where]}
    root = _configuration(where, name)
    found: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*")):
        inside = file.relative_to(root)
        if file.is_file() and _holds_rows(inside):
            found.setdefault(_split_of(inside), []).append(file)
    if not found:
        raise NodeError(f"data.path: {root} holds no {', '.join(DATA_SUFFIXES)} file.")
    for split, parts in found.items():
        folders = sorted({file.parent.relative_to(root).as_posix() for file in parts})
        if len(folders) > 1:
            raise NodeError(
                f"data.path: the {split} split of {root} lies in several directories ({', '.join(folders)}). "
                "Say which one with data.name, or name it in data.path."
            )
    return found


def _configuration(where: Path, name: str | None) -> Path:
    """Return the directory of one configuration of a data set."""
    if name is None:
        return where
    folders = sorted(entry.name for entry in where.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if name not in folders:
        raise NodeError(f'data.name: {where} has no directory "{name}"; it has: {", ".join(folders) or "none"}.')
    return where / name


def _holds_rows(file: Path) -> bool:
    """Return whether a file can be data: neither hidden, nor one of those that describe a repository."""
    about = file.name in _ABOUT or (
        file.suffix == ".txt" and file.stem.lower() in ("readme", "license", "requirements")
    )
    return file.suffix in DATA_SUFFIXES and not about and not any(part.startswith(".") for part in file.parts)


def read_rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows of some files of one split, in order.

    :raises NodeError: with file and line, when a row cannot be read
    """
    for file in files:
        readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".txt": _text, ".tsv": _tabbed}
        reader = readers.get(file.suffix, _table)
        yield from reader(file)


def _split_of(file: Path) -> str:
    for word in re.split(r"[^a-z]+", str(file.with_suffix("")).lower()):
        if word in _SPLIT_WORDS:
            return _SPLIT_WORDS[word]
    return file.stem


def _builtin(path: str) -> Path | None:
    if not path.startswith(BUILTIN):
        return None
    root = Path(str(files("lorafile.engine.builtin")))
    name = path.removeprefix(BUILTIN)
    known = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("_"))
    if name not in known:
        raise NodeError(f'There is no "{path}"; built in are: {", ".join(BUILTIN + other for other in known)}.')
    return root / name


def _local(path: str, base: Path) -> Path | None:
    candidate = Path(path).expanduser()
    candidate = candidate if candidate.is_absolute() else base / candidate
    if candidate.exists():
        return candidate
    looks_local = path.startswith((".", "/", "~")) or path.endswith(DATA_SUFFIXES) or path.count("/") != 1
    if (looks_local and "/" in path) or path.endswith(DATA_SUFFIXES):
        raise NodeError(f"There is no file or directory {candidate}.")
    return None


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    import json

    with file.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(_decoded(stream, file), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise NodeError(f"{file}:{number}: not valid JSON: {error}") from error
                yield _row(row, file, number)


def _json(file: Path) -> Iterator[dict[str, Any]]:
    import json

    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError) or "Extra data" not in str(error):
            raise NodeError(f"{file}: not valid JSON: {error}") from error
        yield from _jsonl(file)  # JSON lines under the shorter ending, as many hub sets are
        return
    if isinstance(rows, dict):
        rows = next((value for value in rows.values() if isinstance(value, list)), None)
    if not isinstance(rows, list):
        raise NodeError(f"{file}: should hold a list of rows.")
    for number, row in enumerate(rows, 1):
        yield from _questions(row) if isinstance(row, dict) and "paragraphs" in row else [_row(row, file, number)]


def _questions(article: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the questions of an article in SQuAD's published layout, as rows of the hub's layout."""
    for paragraph in article["paragraphs"]:
        for asked in paragraph["qas"]:
            answers = asked.get("answers", [])
            yield {
                "id": asked.get("id"),
                "title": article.get("title"),
                "context": paragraph["context"],
                "question": asked["question"],
                "answers": {
                    "text": [answer["text"] for answer in answers],
                    "answer_start": [answer["answer_start"] for answer in answers],
                },
            }


def _tabbed(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a TSV file: published sets (GLUE) quote nothing, others as CSV does.

    A quotation mark inside a field is a character of it, unless the field is quoted from end to end. Where that does
    not give every line as many fields as the first, the file is read as CSV reads it: quoted fields may span lines.
    """
    with file.open(encoding="utf-8-sig", newline="") as stream:
        lines = [line.rstrip("\r\n").split("\t") for line in _decoded(stream, file)]
    lines = [fields for fields in lines if fields != [""]]
    if not lines or any(len(fields) != len(lines[0]) for fields in lines):
        yield from _table(file)
        return
    names = [_unquoted(name) for name in lines[0]]
    for fields in lines[1:]:
        yield dict(zip(names, map(_unquoted, fields), strict=True))


def _unquoted(field: str) -> str:
    return field[1:-1].replace('""', '"') if _QUOTED.fullmatch(field) else field


def _table(file: Path) -> Iterator[dict[str, Any]]:
    import csv

    csv.field_size_limit(2**31 - 1)  # a document may be longer than the 128 KiB that the module allows at first
    delimiter = "\t" if file.suffix == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as stream:
        try:
            yield from csv.DictReader(_decoded(stream, file), delimiter=delimiter)
        except csv.Error as error:
            raise NodeError(f"{file}: not a readable table: {error}") from error


def _text(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig") as stream:
        for line in _decoded(stream, file):
            if line.strip():
                yield {"text": line.rstrip("\n")}


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise NodeError(f"{file}: not a readable Parquet file: {error}") from error


def _decoded(stream: Any, file: Path) -> Iterator[str]:
    try:
        yield from stream
    except UnicodeDecodeError as error:
        raise NodeError(f"{file}: is not UTF-8 text (byte {error.start}).") from error


def _row(row: Any, file: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise NodeError(f"{file}:{number}: a row should be an object with named fields, not {type(row).__name__}.")
    return row
