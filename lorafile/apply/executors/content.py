"""Files by their content: what a request reads, named by digests instead of paths, and turned into paths on a node."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorafile.engine.data.hub import MODEL_FILES, snapshot
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import Work
from lorafile.errors import LoraError, NodeError
from lorafile.files.digests import file_digest, json_digest
from lorafile.files.user_cache import cached_digest

LARGE = 100_000_000  # bytes: more is fetched from the hub where it can be, and travels in pieces
_KEPT_SECONDS = 7 * 24 * 3600.0  # of a node's copy since it was last read
_TREES = ("model", "lm_eval")  # paths of a request that are directories
_LISTS = ("data", "shots")  # and those that are lists of files


@dataclass
class ContentIndex:
    """The applying process's side: it names files by digest, and knows where it has them.

    :ivar files: digest -> path
    """

    files: dict[str, Path] = field(default_factory=dict)
    _references: dict[Path, dict[str, Any]] = field(default_factory=dict)

    def refer(self, work: Work) -> Work:
        """Return work whose requests name content instead of paths."""
        return replace(work, replicates=[[self._request(each) for each in requests] for requests in work.replicates])

    def path_of(self, digest: str) -> Path:
        """Return where a file of this digest is.

        :raises LoraError: when it is not what it was when work was made of it
        """
        path = self.files[digest]
        try:
            if cached_digest(path) == digest:
                return path
            why = "it changed in the meantime"
        except OSError as error:
            why = error.strerror or str(error)
        raise LoraError(f"{path} cannot be sent to the cluster: {why}. Run lora apply again.")

    def _request(self, request: Request) -> Request:
        paths = dict(request.paths)
        for name in _TREES:
            if name in paths:
                paths[name] = self._reference(Path(paths[name]), MODEL_FILES if name == "model" else ("*",))
        for name in _LISTS:
            if name in paths:
                paths[name] = [self._data_file(file) for file in paths[name]]
        if "checkpoint" in paths:  # it changes with every attempt
            paths["checkpoint"] = self._list(Path(paths["checkpoint"]), ("*",))
        inputs = {
            role: {name: self._digest(Path(path)) for name, path in files.items()}
            for role, files in request.inputs.items()
        }
        return replace(request, paths=paths, inputs=inputs)

    def _data_file(self, file: str | dict[str, Any]) -> dict[str, Any]:
        settings = {"path": file} if isinstance(file, str) else file
        return {**settings, "path": self._reference(Path(settings["path"]), ("*",)), "plain": isinstance(file, str)}

    def _reference(self, path: Path, patterns: Iterable[str]) -> dict[str, Any]:
        if path not in self._references:
            self._references[path] = self._list(path, patterns) | _hub_place(path)
        return self._references[path]

    def _list(self, path: Path, patterns: Iterable[str]) -> dict[str, Any]:
        """Return the files of a directory that fit a pattern, or a single one; `entry` is its name in that case."""
        if path.is_file():
            return {"entry": path.name, "files": {path.name: self._file(path)}}
        names = sorted({file for pattern in patterns for file in path.rglob(pattern) if file.is_file()})
        return {"entry": "", "files": {file.relative_to(path).as_posix(): self._file(file) for file in names}}

    def _file(self, path: Path) -> list[Any]:
        return [self._digest(path), path.stat().st_size]

    def _digest(self, path: Path) -> str:
        digest = cached_digest(path)
        self.files[digest] = path
        return digest


def _hub_place(path: Path) -> dict[str, Any]:
    """Return which revision of which repository a directory of the hub's cache is; nothing for another directory."""
    kind, _, name = path.parent.parent.name.partition("--")
    if path.parent.name != "snapshots" or kind not in ("models", "datasets"):
        return {}
    return {"hub": {"kind": kind.removesuffix("s"), "name": name.replace("--", "/"), "revision": path.name}}


def digests_of(work: Work) -> set[str]:
    """Return the digests of all files that the requests of some work name."""
    return {digest for requests in work.replicates for request in requests for digest in _digests(request)}


def _digests(request: Request) -> set[str]:
    references = [request.paths[name] for name in (*_TREES, "checkpoint") if name in request.paths]
    references += [file["path"] for name in _LISTS for file in request.paths.get(name, [])]
    inputs = {digest for files in request.inputs.values() for digest in files.values()}
    return inputs | {digest for reference in references for digest, _ in reference["files"].values()}


class FileStore:
    """A node's copies of files, under their digests; several agents may share it.

    :param root: a directory of this node, or one that it shares with the applying process
    """

    def __init__(self, root: Path) -> None:
        self._objects, self._trees = root / "objects", root / "trees"
        for directory in (self._objects, self._trees):
            directory.mkdir(parents=True, exist_ok=True)
        self._proven: set[str] = set()
        self._parts: dict[str, tuple[Path, int]] = {}

    def path(self, digest: str) -> Path:
        """Return where a file stands, or would stand."""
        return self._objects / digest

    def has(self, digest: str) -> bool:
        """Return whether a file is here, with the bytes that it should have; one with others is removed."""
        path = self.path(digest)
        if digest in self._proven:
            return True
        if not path.is_file():
            return False
        if file_digest(path) != digest:
            path.unlink(missing_ok=True)
            return False
        if path.stat().st_nlink == 1:  # else the file has another owner, too
            path.touch()
        self._proven.add(digest)
        return True

    def add_piece(self, digest: str, offset: int, size: int, content: bytes) -> None:
        """Take a piece of a file; the last one gives it its name, if the bytes are those that it should have."""
        part, done = self._parts.get(digest, (Path(), 0))
        if offset == 0:
            handle, name = tempfile.mkstemp(dir=self._objects, prefix=".part-")
            os.close(handle)
            part, done = Path(name), 0
        if offset != done:
            return  # of a transfer that was begun again
        with part.open("ab") as stream:
            stream.write(content)
        self._parts[digest] = (part, done + len(content))
        if done + len(content) >= size:
            del self._parts[digest]
            if file_digest(part) == digest:
                part.replace(self.path(digest))
            part.unlink(missing_ok=True)

    def put(self, file: Path, digest: str) -> None:
        """Add a file of the same machine: as a link where that goes, else as a copy."""
        target = self.path(digest)
        if target.exists():
            return
        new = target.with_name(f".new-{digest}-{os.getpid()}")
        try:
            os.link(file.resolve(), new)
        except OSError:
            shutil.copyfile(file, new)
        new.replace(target)

    def tree(self, reference: dict[str, Any]) -> Path:
        """Return the directory, or the file, that a reference names; its files are links to copies that are here."""
        files = reference["files"]
        directory = self._trees / json_digest(files, sort_keys=True)
        if not directory.is_dir():
            new = Path(tempfile.mkdtemp(dir=self._trees, prefix=".new-"))
            for name, (digest, _) in files.items():
                target = _inside(new, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(self.path(digest).absolute())
            try:
                new.rename(directory)
            except OSError:  # another agent of this node was faster
                shutil.rmtree(new)
        return directory / str(reference["entry"])

    def remove_unread(self) -> None:
        """Remove copies that were not read for a week."""
        now = time.time()
        for file in self._objects.iterdir():
            if now - file.stat().st_mtime > _KEPT_SECONDS:
                file.unlink(missing_ok=True)


def _inside(directory: Path, name: str) -> Path:
    """Return a path in a directory.

    :raises LoraError: when the name leads out of it
    """
    target = directory / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise LoraError(f"The file name {name!r} points outside its directory.")
    return target


@dataclass
class Localizer:
    """The node's side: it turns the content that requests name into paths.

    :ivar runs: where unfinished runs have their directories
    """

    store: FileStore
    runs: Path
    _snapshots: dict[str, Path | None] = field(default_factory=dict)

    def missing(self, work: Work) -> list[str]:
        """Return the digests of files that the work reads and that are not here."""
        on_hub = {
            digest
            for reference in self._references(work)
            if self._snapshot(reference)
            for digest, _ in reference["files"].values()
        }
        return sorted(digest for digest in digests_of(work) - on_hub if not self.store.has(digest))

    def localize(self, work: Work) -> Work:
        """Return the work with paths of this node; every file that it reads is here."""
        return replace(work, replicates=[[self._request(each) for each in requests] for requests in work.replicates])

    def _request(self, request: Request) -> Request:
        paths = dict(request.paths)
        for name in _TREES:
            if name in paths:
                paths[name] = str(self._snapshot(paths[name]) or self.store.tree(paths[name]))
        for name in _LISTS:
            if name in paths:
                paths[name] = [self._data_file(file) for file in paths[name]]
        if "checkpoint" in paths:
            paths["checkpoint"] = self._resume(request.key, paths["checkpoint"])
        inputs = {
            role: {name: str(self.store.path(digest)) for name, digest in files.items()}
            for role, files in request.inputs.items()
        }
        return replace(request, paths=paths, inputs=inputs)

    def _data_file(self, file: dict[str, Any]) -> str | dict[str, Any]:
        path = str(self.store.tree(file["path"]))
        return (
            path if file["plain"] else {name: value for name, value in file.items() if name != "plain"} | {"path": path}
        )

    def _resume(self, key: str, reference: dict[str, Any]) -> str:
        """Return the directory of a run on this node, with the checkpoint that the applying process has of it."""
        directory = _inside(self.runs, key)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for name, (digest, _) in reference["files"].items():
            shutil.copyfile(self.store.path(digest), _inside(directory, name))
        return str(directory)

    def _references(self, work: Work) -> list[dict[str, Any]]:
        requests = [request for requests in work.replicates for request in requests]
        return [request.paths[name] for request in requests for name in _TREES if name in request.paths]

    def _snapshot(self, reference: dict[str, Any]) -> Path | None:
        """Return a large model's directory in the hub's cache of this node, fetched where the hub can be reached."""
        hub, files = reference.get("hub"), reference["files"]
        if not hub or sum(size for _, size in files.values()) < LARGE:
            return None
        name = json_digest(files, sort_keys=True)
        if name not in self._snapshots:
            self._snapshots[name] = _whole_snapshot(hub, files)
        return self._snapshots[name]


def _whole_snapshot(hub: dict[str, str], files: dict[str, Any]) -> Path | None:
    """Return a revision's directory where it has all files in their lengths; None where it does not come."""
    try:
        directory = snapshot(hub["name"], hub["kind"], hub["revision"])
    except NodeError:  # the applying process sends the files
        return None
    whole = all(
        (directory / name).is_file() and (directory / name).stat().st_size == size for name, (_, size) in files.items()
    )
    return directory if whole else None
