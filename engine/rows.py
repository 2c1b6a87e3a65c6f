"""Where models and data are on this machine, and the rows of a data file. Imports no torch, so that a plan can ask."""

import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from lorafile.errors import NodeError

BUILTIN = "builtin:"
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
_SPLIT_WORDS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_WEIGHTS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py")


def find_model(path: str, revision: str | None, base: Path, download: bool = True) -> Path:
    """Return the directory of a model: built in, local (relative to the spec's directory), or a hub snapshot.

    :raises NodeError: when there is no such model, or the hub cannot be asked
    """
    directory = _builtin(path) or _local(path, base)
    if directory is None:
        directory = _snapshot(path, "model", revision, download)
    if not (directory / "config.json").is_file():
        raise NodeError(f"model.path: {directory} holds no config.json, so it is not a transformers model.")
    return directory


def find_data(path: str, revision: str | None, base: Path, download: bool = True) -> Path:
    """Return the file or directory of a data set: built in, local, or a hub snapshot."""
    return _builtin(path) or _local(path, base) or _snapshot(path, "dataset", revision, download)


def data_files(where: Path, name: str | None = None) -> dict[str, list[Path]]:
    """Return split -> its files; a single file is the split `train`.

    :param name: the configuration of a data set that keeps each in a directory of its own
    :raises NodeError: when nothing readable is there
    """
    if where.is_file():
        return {"train": [where]}
    root = where / name if name and (where / name).is_dir() else where
    found: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*")):
        if (
            file.suffix in DATA_SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(root).parts)
        ):
            found.setdefault(_split_of(file.relative_to(root)), []).append(file)
    if not found:
        raise NodeError(f"data.path: {root} holds no {', '.join(DATA_SUFFIXES)} file.")
    return found


def read_rows(files: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield the rows of some files of one split, in order.

    :raises NodeError: with file and line, when a row cannot be read
    """
    for file in files:
        reader = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet, ".txt": _text}.get(file.suffix, _table)
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


def _snapshot(name: str, kind: str, revision: str | None, download: bool) -> Path:
    """Return a hub repository's snapshot; `HF_HUB_OFFLINE=1` and `download=False` take only what the cache holds."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = list(_WEIGHTS) if kind == "model" else [f"*{suffix}" for suffix in DATA_SUFFIXES]
    try:
        found = snapshot_download(
            name, repo_type=kind, revision=revision, allow_patterns=patterns, local_files_only=not download
        )
        return Path(found)
    except HFValidationError as error:
        raise NodeError(f'"{name}" is neither a file or directory here nor a valid hub name.') from error
    except LocalEntryNotFoundError as error:
        how = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
        where = f' at revision "{revision}"' if revision else ""
        raise NodeError(
            f'The {kind} "{name}"{where} is neither a path here nor in the hub cache, and {how}.'
        ) from error
    except HfHubHTTPError as error:
        raise NodeError(f'The hub refused the {kind} "{name}": {str(error).splitlines()[0]}') from error


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    import json

    with file.open(encoding="utf-8") as stream:
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
        rows = json.loads(file.read_text(encoding="utf-8"))
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
        yield _row(row, file, number)


def _table(file: Path) -> Iterator[dict[str, Any]]:
    import csv

    with file.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(_decoded(stream, file), delimiter="\t" if file.suffix == ".tsv" else ",")


def _text(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as stream:
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
