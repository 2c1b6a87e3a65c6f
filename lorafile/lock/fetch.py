"""Download the models and data of a study at the revisions of the lock, and verify them against its digests."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorafile.engine.data.hub import bytes_to_download, check_room
from lorafile.engine.data.sources import BUILTIN, find_data, find_model
from lorafile.errors import LoraError
from lorafile.lock.data import DataLock, lock_data
from lorafile.lock.lockfile import Lock, ModelLock, identity, is_on_hub, lock_model, read_lock, write_lock
from lorafile.specs import Spec
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.settings import ModelTable


@dataclass(frozen=True)
class Fetched:
    """One model or data set that is here now.

    :ivar kind: `model` or `data`
    :ivar revision: the commit, of what comes from a hub
    :ivar how: `downloaded`, `cached` (it was in the hub cache), `local`, or `builtin`
    :ivar bytes: of all its files
    """

    kind: str
    name: str
    revision: str | None
    how: str
    bytes: int
    where: Path


def fetch(spec: Spec, to: Path | None = None, tell: Callable[[Fetched], None] | None = None) -> list[Fetched]:
    """Download every model and data set of a study, verify them, and write the lock.

    :param to: a directory that also gets each repository as a plain directory, usable as a local path
    :param tell: is called as soon as each has come
    :raises NodeError: when the hub refuses, or the disk has no room
    :raises LoraError: when what came is not what the lock says
    """
    old, base = read_lock(spec) or Lock({}, {}), spec.file.parent
    models: dict[str, ModelLock] = {}
    data: dict[str, DataLock] = {}
    everything: list[Fetched] = []
    pairs = [(configuration.model, configuration.data) for configuration in spec.configurations]
    for table in [*(table for pair in pairs for table in pair), *([spec.reference] if spec.reference else [])]:
        name = identity(table)
        if name in (models if isinstance(table, ModelTable) else data):
            continue
        if isinstance(table, ModelTable):
            models[name], fetched = _fetch_model(table, base, old.models.get(name), to)
        else:
            data[name], fetched = _fetch_data(table, base, old.data.get(name), to)
        everything.append(fetched)
        if tell is not None:
            tell(fetched)
    lock = Lock(models, data)
    if lock != old:
        write_lock(spec, lock)
    return everything


def _fetch_model(table: ModelTable, base: Path, locked: ModelLock | None, to: Path | None) -> tuple[ModelLock, Fetched]:
    remote = is_on_hub(table.path, base)
    pinned = table.model_copy(update={"revision": locked.revision}) if locked and remote else table
    how = _download(pinned, remote)
    directory = find_model(pinned.path, pinned.revision, base)
    entry, parts = lock_model(pinned, base), ("weights", "config", "tokenizer")
    if locked is not None and remote and entry != locked:
        _raise_mismatch(table, directory, [name for name in parts if getattr(locked, name) != getattr(entry, name)])
    if to is not None and remote:
        directory = _copy(directory, to / "models" / table.path.replace("/", "--"))
        copied = lock_model(ModelTable(path=str(directory)), base)
        if any(getattr(copied, name) != getattr(entry, name) for name in parts):
            _raise_mismatch(table, directory, ["files"])
    return entry, Fetched("model", identity(table), entry.revision, how, _size(directory), directory)


def _fetch_data(table: DataTable, base: Path, locked: DataLock | None, to: Path | None) -> tuple[DataLock, Fetched]:
    remote = is_on_hub(table.path, base)
    pinned = table.model_copy(update={"revision": locked.revision}) if locked and remote else table
    how = _download(pinned, remote)
    directory = find_data(pinned.path, pinned.revision, base)
    entry = lock_data(pinned, base, locked)
    if locked is not None and remote and entry.digests != locked.digests:
        splits = sorted(split for split, digest in entry.digests.items() if digest != locked.digests.get(split))
        _raise_mismatch(table, directory, splits)
    if to is not None and remote:
        directory = _copy(directory, to / "data" / table.path.replace("/", "--"))
        copied = lock_data(table.model_copy(update={"path": str(directory), "revision": None}), base, entry)
        if copied.digests != entry.digests:
            _raise_mismatch(table, directory, ["files"])
    return entry, Fetched("data", identity(table), entry.revision, how, _size(directory), directory)


def _download(table: ModelTable | DataTable, remote: bool) -> str:
    """Check the disk for room before a download; return where a model or data set comes from."""
    if not remote:
        return "builtin" if table.path.startswith(BUILTIN) else "local"
    kind = "model" if isinstance(table, ModelTable) else "dataset"
    needed = bytes_to_download(table.path, kind, table.revision)
    check_room(table.path, kind, needed)
    return "downloaded" if needed else "cached"


def _raise_mismatch(table: ModelTable | DataTable, directory: Path, differing: list[str]) -> None:
    what = ", ".join(differing) or "revision"
    raise LoraError(
        f"{identity(table)}: the files in {directory} do not match the lock ({what} differ). "
        "Delete that directory and fetch again. If the files are correct, accept them with: lora lock"
    )


def _copy(snapshot: Path, target: Path) -> Path:
    """Show a snapshot as a plain directory: hard links where the disk is the same, copies elsewhere."""
    for file in sorted(snapshot.rglob("*")):
        if not file.is_file():
            continue
        real, new = file.resolve(), target / file.relative_to(snapshot)
        if new.is_file() and new.samefile(real):
            continue
        new.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        try:
            os.link(real, new)
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(real, new)
    return target


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
