"""Where models and data are on this machine. Imports no torch, so that a plan can ask."""

import re
from dataclasses import replace
from importlib.resources import files
from itertools import islice
from pathlib import Path

from lorafile.engine.data.files import FORMATS, PLAIN, SUFFIXES, DataFile, Reading, stem_of, suffix_of
from lorafile.engine.data.hub import snapshot
from lorafile.engine.data.layouts import configuration, has_configurations, saved_splits
from lorafile.engine.data.readers import holds_rows, json_lists, several_lists
from lorafile.errors import NodeError

BUILTIN = "builtin:"
_MOST_ENTRIES = 100_000  # of a directory with data, and of all that are in it
_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")
_ABOUT = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json")
_SPLIT_WORDS = dict.fromkeys(("train", "training"), "train")
_SPLIT_WORDS |= dict.fromkeys(("validation", "valid", "val", "dev"), "validation")
_SPLIT_WORDS |= dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")
_ROLES = dict.fromkeys(("text", "texts", "sentences", "input", "inputs", "source", "x"), "texts")
_ROLES |= dict.fromkeys(("label", "labels", "target", "targets", "y"), "labels")


def find_model(path: str, revision: str | None, base: Path) -> Path:
    """Return the directory of a model: built in, local (relative to the spec's directory), or a hub snapshot.

    :raises NodeError: when there is no such model, or the hub cannot be asked
    """
    directory = _builtin(path) or _local(path, base) or snapshot(path, "model", revision)
    if not (directory / "config.json").is_file():
        raise NodeError(f"model.path: {directory} has no config.json, so it is not a transformers model.")
    return directory


def find_data(path: str, revision: str | None, base: Path) -> Path:
    """Return the file or directory of a data set: built in, local, or a hub snapshot."""
    return _builtin(path) or _local(path, base) or snapshot(path, "dataset", revision)


def data_files(
    path: Path, name: str | None = None, reading: Reading = PLAIN, left_out: list[str] | None = None
) -> dict[str, list[DataFile]]:
    """Return split -> its files; a single file is the split `train`, unless it is JSON that holds splits by name.

    :param name: the configuration of a data set that has several: of its README.md, or a directory of its own
    :param left_out: gets the names of JSON files that hold no rows next to others that do
    :raises NodeError: when nothing readable is there, or far more than any data set has
    """
    if path.is_file():
        return _of_file(DataFile(path, reading))
    declared = configuration(path, name, reading) if has_configurations(path) else None
    if declared is not None:
        return {split: declared[own] for own, split in declared_names(list(declared)).items()}
    root = _directory(path, name)
    saved = saved_splits(root)
    if saved is not None:
        return {split: [DataFile(saved[own], reading)] for own, split in declared_names(list(saved)).items()}
    files = _files_in(root)
    if len(files) > 1:
        files = _with_rows(files, reading, left_out)
    if len(files) == 1:
        lists = _of_file(DataFile(files[0], reading))
        if any(file.reading != reading for parts in lists.values() for file in parts):
            return lists
    return {split: [DataFile(file, reading) for file in parts] for split, parts in _by_name(files, root).items()}


def _by_name(files: list[Path], root: Path) -> dict[str, list[Path]]:
    """Return split -> its files in a directory, by their names.

    :raises NodeError: when a split lies in several directories, or its texts and its labels in separate files
    """
    _check_whole_rows(files, root)
    splits: dict[str, list[Path]] = {}
    own = {file: split_of(file.relative_to(root)) for file in files}
    names = split_names(list(own.values()))
    for file in files:
        splits.setdefault(names[own[file]], []).append(file)
    for split, parts in splits.items():
        folders = sorted({file.parent.relative_to(root).as_posix() for file in parts})
        if len(folders) > 1:
            raise NodeError(
                f"data.path: the {split} split of {root} is spread over several directories ({', '.join(folders)}). "
                "Select one with data.name or data.path."
            )
    return {split if canonical(split) or len(parts) > 1 else parts[0].stem: parts for split, parts in splits.items()}


def _check_whole_rows(files: list[Path], root: Path) -> None:
    """Refuse files of texts next to files of their labels: nothing says that line belongs to line.

    :raises NodeError: with what can be done
    """
    found: dict[tuple[Path, str], dict[str, str]] = {}
    for file in files:
        words = _words(stem_of(file)).split("_")
        roles = [_ROLES[word] for word in words if word in _ROLES]
        if len(roles) == 1:
            rest = "_".join(word for word in words if word not in _ROLES)
            found.setdefault((file.parent, rest), {})[roles[0]] = file.name
    for names in found.values():
        if len(names) > 1:
            raise NodeError(
                f"data.path: {root} has texts and labels in separate files ({names['texts']}, {names['labels']}), "
                "which are not joined. Write both as columns of one file for each split, such as train.csv, or set "
                "data.path to a single file."
            )


def _files_in(root: Path) -> list[Path]:
    """Return the files of a directory that can be data.

    :raises NodeError: when there are none, or far too many to look through
    """
    entries = list(islice(root.rglob("*"), _MOST_ENTRIES + 1))
    if len(entries) > _MOST_ENTRIES:
        raise NodeError(
            f"data.path: {root} contains more than {_MOST_ENTRIES:,} files and directories, too many to search. "
            "Set it to the directory of the data itself."
        )
    files = sorted(file for file in entries if file.is_file() and _holds_rows(file.relative_to(root)))
    if files:
        return files
    scripts = [file.name for file in entries if file.suffix == ".py"]
    if scripts:
        raise NodeError(
            f"data.path: {root} has no rows but a loading script ({scripts[0]}), and code from data sets is not run. "
            "Convert it to Parquet or JSONL with a version of datasets that still runs it."
        )
    raise NodeError(f"data.path: {root} contains no {', '.join(FORMATS)} file.")


def _of_file(file: DataFile) -> dict[str, list[DataFile]]:
    """Return the splits of a single file: `train`, or the lists of rows in a JSON object that are called as splits are.

    :raises NodeError: when a JSON object has several lists, and not all of them are called so
    """
    lists = json_lists(file) if file.format == ".json" and file.suffix and file.reading.field is None else None
    if not lists:
        return {"train": [file]}
    words = {name: canonical(name) for name in lists}
    if len(lists) > 1 and not all(words.values()):
        raise NodeError(several_lists(file.path, lists))
    if len(lists) == 1 and words[lists[0]] in (None, "train"):
        return {"train": [file]}
    fields = declared_names(lists)
    return {fields[name]: [DataFile(file.path, replace(file.reading, field=name))] for name in lists}


def _directory(directory: Path, name: str | None) -> Path:
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
    return bool(suffix_of(file)) and not about and not any(part.startswith(".") for part in file.parts)


def _with_rows(files: list[Path], reading: Reading, left_out: list[str] | None) -> list[Path]:
    """Return the files without JSON ones that hold no rows, such as results or a list of classes, if others do."""
    without = [
        file for file in files if _words(stem_of(file)) not in _SPLIT_WORDS and not holds_rows(DataFile(file, reading))
    ]
    if len(without) == len(files):
        return files
    if left_out is not None:
        left_out += [file.name for file in without]
    return [file for file in files if file not in without]


def canonical(name: str) -> str | None:
    """Return which split a name says: train, validation or test; None where it says none."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), None)


def split_of(file: Path) -> str:
    """Return what a file calls its split: its name without the numbers of shards, or a directory's."""
    stem = _SHARD.sub("", stem_of(file))
    if canonical(stem) or not canonical(file.parent.as_posix()):
        return stem
    return next(part for part in file.parent.parts if canonical(part))


def declared_names(names: list[str]) -> dict[str, str]:
    """Return name -> split of splits that the data name themselves; `dev` is `validation`, if no other is."""
    splits = {name: _SPLIT_WORDS.get(name.lower(), name) for name in names}
    return splits if len(set(splits.values())) == len(names) else {name: name for name in names}


def split_names(names: list[str]) -> dict[str, str]:
    """Return name -> split, of whatever files call their splits.

    Names that differ in numbers alone are parts of one split (`train_1`, `train_2`). Where several say one split
    (`dev_matched`, `dev_mismatched`), the one that says nothing else has it, and the others keep names of their own.
    """
    groups: dict[str, dict[str, list[str]]] = {}
    for name in dict.fromkeys(names):
        split = canonical(name)
        if split:
            groups.setdefault(split, {}).setdefault(_words(name), []).append(name)
    splits = {name: name for name in names if not canonical(name)}
    for split, variants in groups.items():
        plain = next((words for words in variants if words in _SPLIT_WORDS), None)
        for words, same in variants.items():
            alone = len(variants) == 1 or words == plain
            splits |= dict.fromkeys(same, split if alone else _variant(words, split))
    return splits


def _words(name: str) -> str:
    return "_".join(word for word in re.split(r"[^a-z]+", name.lower()) if word)


def _variant(words: str, split: str) -> str:
    """Return the name of one of several that say the same split: `dev_matched` is `validation_matched`."""
    return "_".join(split if word in _SPLIT_WORDS else word for word in words.split("_"))


def _builtin(path: str) -> Path | None:
    if not path.startswith(BUILTIN):
        return None
    root = Path(str(files("lorafile.engine.builtin")))
    name = path.removeprefix(BUILTIN)
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("_"))
    if name not in names:
        raise NodeError(f'There is no "{path}"; built-in data: {", ".join(BUILTIN + other for other in names)}.')
    return root / name


def _local(path: str, base: Path) -> Path | None:
    candidate = Path(path).expanduser()
    candidate = candidate if candidate.is_absolute() else base / candidate
    if candidate.exists():
        return candidate
    looks_local = path.startswith((".", "/", "~")) or path.lower().endswith(SUFFIXES) or path.count("/") != 1
    if (looks_local and "/" in path) or path.lower().endswith(SUFFIXES):
        raise NodeError(
            f"There is no file or directory {candidate}. A relative path begins where the spec stands; what is on the "
            "hub is named as in owner/name."
        )
    return None
