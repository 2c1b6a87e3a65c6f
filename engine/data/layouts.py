"""What the library `datasets` reads: configurations of a README.md, directories of `save_to_disk`, Arrow files.

It is imported only here, and only where such data are read: a machine without it plans all others, and whatever a lock
already knows. Nothing is downloaded, no code of a data set is run, and nothing is written next to the data.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lorafile.engine.data.files import CARDS, FORMATS, DataFile, Reading, suffix_of
from lorafile.errors import NodeError, install_command

_FRONT = re.compile(r"\A\s*---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_CONFIGURATIONS = re.compile(r"^configs\s*:", re.MULTILINE)
_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
_BUILDERS |= {".txt": "text"}
# Settings of a builder's configuration that say where files are, and not how they are read.
_OF_LAYOUT = ("name", "version", "data_dir", "data_files", "description", "features")
Row = dict[str, Any]


def rows_by_datasets(file: DataFile) -> Iterator[Row]:
    """Yield the rows of a file or directory as `datasets` loads them, one at a time.

    :raises NodeError: when the library is missing, or cannot read it
    """
    datasets = _library(file.path)
    try:
        if file.path.is_dir():
            rows = datasets.load_from_disk(str(file.path)).with_format(None)
        else:
            builder = {"name": _BUILDERS[file.format], **file.reading.builder}
            name = builder.pop("name")
            files = {"train": [str(file.path)]}
            rows = datasets.load_dataset(name, data_files=files, split="train", streaming=True, **builder)
        yield from rows
    except NodeError:
        raise
    except Exception as error:  # whatever pandas, pyarrow and the library's own builders meet
        raise NodeError(f"{file.path}: cannot be read by datasets: {_sentence(error)}") from error


def has_configurations(root: Path) -> bool:
    """Return whether a directory's README.md (or .huggingface.yaml) says in `configs:` which files are which split."""
    return any(_CONFIGURATIONS.search(_front(root / name)) for name in CARDS)


def _front(card: Path) -> str:
    """Return the YAML of a card."""
    try:
        text = card.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
    if card.suffix == ".yaml":
        return text
    match = _FRONT.match(text)
    return match[1] if match else ""


def configuration(root: Path, name: str | None, reading: Reading) -> dict[str, list[DataFile]] | None:
    """Return split -> its files of one configuration of a directory's README.md.

    :return: None where it has none of that name, or the one that it has names no files
    :raises NodeError: when several are there and none is named, or `datasets` does not understand the README.md
    """
    datasets = _library(root)
    try:
        names = list(datasets.get_dataset_config_names(str(root)))
        chosen = name or datasets.get_dataset_default_config_name(str(root))
    except Exception as error:
        raise NodeError(f"data.path: datasets cannot parse {root / CARDS[0]}: {_sentence(error)}.") from error
    if chosen is None:
        raise NodeError(
            f"data.name: {root / 'README.md'} declares several configurations ({', '.join(names)}). Name the one to "
            f'read: data.name = "{names[0]}".'
        )
    if chosen not in names:
        if (root / chosen).is_dir():
            return None
        raise NodeError(f'data.name: {root} has no configuration "{chosen}"; it has: {", ".join(names)}.')
    if not _says_which_files(root, chosen):
        return None
    try:
        builder = datasets.load_dataset_builder(str(root), chosen)
        splits = {
            str(name): [_inside(root, Path(file)) for file in files]
            for name, files in builder.config.data_files.items()
        }
    except Exception as error:
        raise NodeError(f'data.name: datasets cannot read "{chosen}" of {root}: {_sentence(error)}') from error
    settings = _builder_settings(builder, [file for files in splits.values() for file in files])
    return {split: [_as_declared(file, settings, reading) for file in files] for split, files in splits.items()}


def _inside(root: Path, file: Path) -> Path:
    """Return a file as it is called from a directory; the library gives it without the links on its way."""
    whole = root.resolve()
    return root / file.relative_to(whole) if file.is_relative_to(whole) else file


def _says_which_files(root: Path, name: str) -> bool:
    """Return whether a configuration names its files; the library takes all of the directory for one that does not."""
    from huggingface_hub import DatasetCard

    if not (root / CARDS[0]).is_file():
        return True
    rows = DatasetCard.load(root / CARDS[0]).data.get("configs") or []
    return any({"data_files", "data_dir"} & row.keys() for row in rows if row.get("config_name") == name)


def other_configurations(root: Path) -> list[str]:
    """Return the configurations of a README.md that are not its default."""
    datasets = _library(root)
    names = list(datasets.get_dataset_config_names(str(root)))
    return [name for name in names if name != datasets.get_dataset_default_config_name(str(root))]


def _builder_settings(builder: Any, files: list[Path]) -> dict[str, Any]:
    """Return what a README.md sets of how its files are read, with the builder's `name`; nothing where it sets nothing.

    The library takes one builder for all configurations, told by the suffixes of the first one's files.

    :raises NodeError: when the settings are for another format than the files have
    """
    config = builder.config
    usual = type(config)(name=config.name)
    settings = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in _OF_LAYOUT and getattr(config, field.name) != getattr(usual, field.name)
    }
    name = type(builder).__module__.rsplit(".", 1)[-1]
    if all(file.suffix.lower() == ".tsv" for file in files) and settings.get("sep") == "\t":
        del settings["sep"]
    fitting = {_BUILDERS.get("." + suffix_of(file).split(".")[1]) for file in files if suffix_of(file)} == {name}
    if not settings or (not fitting and settings == {"sep": "\t"}):
        return {}
    if not fitting:
        listed = ", ".join(settings)
        raise NodeError(f"data.name: README.md sets {listed} for {config.name}, which its files' format does not have.")
    json.dumps(settings)
    return {"name": name, **settings}


def _as_declared(file: Path, settings: dict[str, Any], reading: Reading) -> DataFile:
    if not suffix_of(file):
        raise NodeError(f"data.path: README.md lists {file}, whose suffix is unknown: {', '.join(FORMATS)}.")
    return DataFile(file, replace(reading, builder=settings) if settings else reading)


def saved_splits(root: Path) -> dict[str, Path] | None:
    """Return split -> its directory of a data set that `save_to_disk` wrote; None where it is none.

    :raises NodeError: when a split that it names is not there
    """
    if (root / "state.json").is_file() and any(root.glob("*.arrow")):
        return {"train": root}
    listed = root / "dataset_dict.json"
    if not listed.is_file():
        return None
    try:
        names = [str(name) for name in json.loads(listed.read_text(encoding="utf-8"))["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NodeError(f"{listed} is damaged: {error}.") from error
    for name in names:
        if Path(name).name != name or not (root / name).is_dir():
            raise NodeError(f'{listed} lists the split "{name}", but there is no directory with that name.')
    return {name: root / name for name in names}


def class_names(file: DataFile, column: str) -> dict[str, str]:
    """Return value -> name of the classes of a column, as `datasets` stores them in Parquet and Arrow files."""
    described = _features(file).get(column)
    names = described.get("names") if isinstance(described, dict) else None
    return {str(number): str(name) for number, name in enumerate(names)} if isinstance(names, list) else {}


def declared_class_names(root: Path, name: str | None, column: str) -> dict[str, str]:
    """Return value -> name of the classes of a column, as the `dataset_info` of a directory's README.md names them."""
    if not root.is_dir() or not any("class_label" in _front(root / card) for card in CARDS):
        return {}
    datasets = _library(root)
    try:
        feature = (datasets.load_dataset_builder(str(root), name).info.features or {}).get(column)
    except Exception as error:
        raise NodeError(f"data.path: datasets cannot read {root}: {_sentence(error)}") from error
    names = getattr(feature, "names", None)
    return {str(number): str(name) for number, name in enumerate(names)} if names else {}


def has_datasets() -> bool:
    """Return whether the library is installed; it is not imported for that."""
    return "datasets" in sys.modules or importlib.util.find_spec("datasets") is not None


def _features(file: DataFile) -> dict[str, Any]:
    try:
        if file.path.is_dir():
            return dict(json.loads((file.path / "dataset_info.json").read_text(encoding="utf-8"))["features"])
        if file.format not in (".parquet", ".arrow"):
            return {}
        metadata = _schema(file).metadata or {}
        return dict(json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _schema(file: DataFile) -> Any:
    import pyarrow
    import pyarrow.parquet

    if file.format == ".parquet":
        return pyarrow.parquet.read_schema(file.path)
    with pyarrow.memory_map(str(file.path)) as source:
        try:
            return pyarrow.ipc.open_stream(source).schema
        except pyarrow.ArrowInvalid:
            return pyarrow.ipc.open_file(source).schema


def _library(path: Path) -> Any:
    """Return the library.

    :raises NodeError: when it is not installed
    """
    try:
        import datasets
    except ImportError as error:
        raise NodeError(
            f"{path} has a layout that needs the library datasets, which is not installed. Install it with: "
            f"{install_command()}. If the lock already has these data, a plan does not need it."
        ) from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets


def _sentence(error: Exception) -> str:
    cause = error.__cause__ or error
    lines = (str(cause).strip() or type(cause).__name__).splitlines()
    return ", ".join(line.strip().rstrip(",.:") for line in lines[:2])
