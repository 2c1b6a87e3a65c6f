"""Where models and data are on this machine. Imports no torch, so that a plan can ask."""

import re
from importlib.resources import files
from itertools import islice
from pathlib import Path

from lorafile.engine.data.hub import DATA_SUFFIXES, snapshot
from lorafile.errors import NodeError

BUILTIN = "builtin:"
_BEGINNING = 4096  # bytes of a file by which it is told what it holds
_MOST_ENTRIES = 100_000  # of a directory with data, and of all that are in it
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json")
_SPLIT_WORDS = {"train": "train", **dict.fromkeys(("validation", "valid", "val", "dev"), "validation")}
_SPLIT_WORDS |= dict.fromkeys(("test", "eval", "evaluation"), "test")


def find_model(path: str, revision: str | None, base: Path) -> Path:
    """Return the directory of a model: built in, local (relative to the spec's directory), or a hub snapshot.

    :raises NodeError: when there is no such model, or the hub cannot be asked
    """
    directory = _builtin(path) or _local(path, base) or snapshot(path, "model", revision)
    if not (directory / "config.json").is_file():
        raise NodeError(f"model.path: {directory} holds no config.json, so it is not a transformers model.")
    return directory


def find_data(path: str, revision: str | None, base: Path) -> Path:
    """Return the file or directory of a data set: built in, local, or a hub snapshot."""
    return _builtin(path) or _local(path, base) or snapshot(path, "dataset", revision)


def data_files(path: Path, name: str | None = None) -> dict[str, list[Path]]:
    """Return split -> its files; a single file is the split `train`.

    :param name: the configuration of a data set that keeps each in a directory of its own
    :raises NodeError: when nothing readable is there, or far more than any data set has
    """
    if path.is_file():
        return {"train": [path]}
    root = _configuration(path, name)
    splits: dict[str, list[Path]] = {}
    entries = list(islice(root.rglob("*"), _MOST_ENTRIES + 1))
    if len(entries) > _MOST_ENTRIES:
        raise NodeError(
            f"data.path: {root} holds more than {_MOST_ENTRIES:,} files and directories, which are not looked through. "
            "Name the directory of the data itself."
        )
    for file in sorted(entries):
        inside = file.relative_to(root)
        if file.is_file() and _holds_rows(inside):
            splits.setdefault(_split_of(inside), []).append(file)
    if len(splits) > 1:
        splits = {split: parts for split, parts in splits.items() if not all(map(_lists_names, parts))}
    if not splits:
        raise NodeError(f"data.path: {root} holds no {', '.join(DATA_SUFFIXES)} file.")
    for split, parts in splits.items():
        folders = sorted({file.parent.relative_to(root).as_posix() for file in parts})
        if len(folders) > 1:
            raise NodeError(
                f"data.path: the {split} split of {root} lies in several directories ({', '.join(folders)}). "
                "Say which one with data.name, or name it in data.path."
            )
    return splits


def _configuration(directory: Path, name: str | None) -> Path:
    """Return the directory of one configuration of a data set."""
    if name is None:
        return directory
    folders = sorted(entry.name for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if name not in folders:
        raise NodeError(f'data.name: {directory} has no directory "{name}"; it has: {", ".join(folders) or "none"}.')
    return directory / name


def _holds_rows(file: Path) -> bool:
    """Return whether a file can be data: neither hidden, nor one of those that describe a repository."""
    about = file.name in _ABOUT or (
        file.suffix == ".txt" and file.stem.lower() in ("readme", "license", "requirements")
    )
    return file.suffix in DATA_SUFFIXES and not about and not any(part.startswith(".") for part in file.parts)


def _lists_names(file: Path) -> bool:
    """Return whether a file is a JSON list of names or numbers, such as that of a data set's classes: no rows."""
    if file.suffix != ".json":
        return False
    with file.open("rb") as stream:
        return re.match(rb"\s*\[\s*[^\s{\[\]]", stream.read(_BEGINNING)) is not None


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
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("_"))
    if name not in names:
        raise NodeError(f'There is no "{path}"; built in are: {", ".join(BUILTIN + other for other in names)}.')
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
