"""Runs to TensorBoard: one event file for each, in a directory that is called as the run is."""

import contextlib
import importlib
import json
import re
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from lorafile.apply.tracking.destinations import safe


class Tensorboard:
    """A directory of event files; a run that is sent again is written anew, and its older file goes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.root = Path(options["log_dir"])
        self.library: Any = importlib.import_module("tensorboardX")
        self.root.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, list[Path]] = {}  # run -> what was written of it, under whatever name it had then
        for file in self.root.rglob("events.out.tfevents.*"):
            self.files.setdefault(file.name.rpartition(".")[2], []).append(file)

    def send(self, record: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        """Write a run."""
        self._drop_older(record["id"])
        if record["replaces"]:
            self._drop_older(record["replaces"])
        when = datetime.fromisoformat(record["ended"]).timestamp()
        directory, suffix = self._directory(record), f".{record['id']}"
        writer = self.library.SummaryWriter(logdir=str(directory), filename_suffix=suffix)
        with writer:
            for row in curve:
                for name, value in row.items():
                    if name != "step":
                        writer.add_scalar(_tag(name), value, row["step"], when)
            last = curve[-1]["step"] if curve else 0
            figures = {_tag(name): value for name, value in record["figures"].items()}
            for name, value in figures.items():
                writer.add_scalar(name, value, last, when)
            writer.add_text("lorafile", _about(record), last, when)
            settings = {name: _plain(value) for name, value in record["config"].items()}
            settings["outcome"] = record["outcome"]
            for part in importlib.import_module("tensorboardX.summary").hparams(settings, figures):
                writer.file_writer.add_summary(part, None, when)
        self.files[record["id"]] = list(directory.glob(f"events.out.tfevents.*{suffix}"))

    def _drop_older(self, run: str) -> None:
        """Drop what was written of a run before."""
        for file in self.files.pop(run, []):
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # one is not empty
                for directory in takewhile(lambda one: one != self.root, file.parents):
                    directory.rmdir()

    def close(self) -> None:
        """Nothing is open."""

    def _directory(self, record: dict[str, Any]) -> Path:
        parts = [safe(part) for part in record["name"].split("/")]
        if "/".join(parts) != record["name"]:  # two names may be the same when they are made safe
            parts[-1] += f" {record['id'][:8]}"
        return self.root.joinpath(*parts)


def _about(record: dict[str, Any]) -> str:
    """Return outcome, keys and environment as Markdown."""
    rows = {name: record[name] for name in ("outcome", "message", "started", "ended") if record[name]}
    rows |= {f"key of {name}": key for name, key in record["keys"].items()} | record["environment"]
    lines = [f"| {name} | {' '.join(str(value).replace('|', ' ').split())} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bool, int, float)) else json.dumps(value)


def _tag(name: str) -> str:
    return re.sub(r"[^-/\w.]", "_", name)


def open_tracker(options: dict[str, Any]) -> Tensorboard:
    """Return the tracker that a process sends to."""
    return Tensorboard(options)
