"""Runs to TensorBoard: one event file for each, in a directory that is called as the run is."""

import contextlib
import importlib
import json
import re
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from lorafile.apply.tracking.destinations import safe_name
from lorafile.apply.tracking.tracker import RunRecord, Tracker


class TensorboardTracker(Tracker):
    """A directory of event files; a run that is sent again is written again, and its older file goes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.root = Path(options["log_dir"])
        self.library: Any = importlib.import_module("tensorboardX")
        self.root.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, list[Path]] = {}  # run -> what was written of it, under whatever name it had then
        for file in self.root.rglob("events.out.tfevents.*"):
            self.files.setdefault(file.name.rpartition(".")[2], []).append(file)

    def send(self, record: RunRecord) -> None:
        """Write a run's file: the curve by step, figures at the last step, outcome and keys as text."""
        when, last = datetime.fromisoformat(record.ended).timestamp(), 0
        writer = self._open(record)
        for row in record.curve:
            last = row["step"]
            for name, value in row.items():
                if name != "step":
                    writer.add_scalar(_tag(name), value, last, when)
        figures = {_tag(name): value for name, value in record.figures.items()}
        for name, value in figures.items():
            writer.add_scalar(name, value, last, when)
        settings = {name: _plain(value) for name, value in record.config.items()} | {"outcome": record.outcome}
        for part in importlib.import_module("tensorboardX.summary").hparams(settings, figures):
            writer.file_writer.add_summary(part, None, when)
        writer.add_text("lorafile", _markdown(record), last, when)
        writer.close()

    def _open(self, record: RunRecord) -> Any:
        """Remove what was written of a run, and begin its file."""
        for run in filter(None, (record.id, record.replaces)):
            self._drop(run)
        names = [safe_name(part) for part in record.name.split("/")]
        if "/".join(names) != record.name:  # two names may be the same when they are made safe
            names[-1] += f" {record.id[:8]}"
        directory, suffix = self.root.joinpath(*names), f".{record.id}"
        writer = self.library.SummaryWriter(logdir=str(directory), filename_suffix=suffix)
        self.files[record.id] = list(directory.glob(f"events.out.tfevents.*{suffix}"))
        return writer

    def _drop(self, run: str) -> None:
        for file in self.files.pop(run, []):
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # one is not empty
                for directory in takewhile(lambda parent: parent != self.root, file.parents):
                    directory.rmdir()


def _markdown(record: RunRecord) -> str:
    """Return outcome, keys and environment of a run as a table."""
    rows = {name: getattr(record, name) for name in ("outcome", "message", "started", "ended")}
    rows = {name: value for name, value in rows.items() if value}
    rows |= {f"key of {name}": key for name, key in record.keys.items()} | record.environment
    lines = [f"| {name} | {' '.join(str(value).replace('|', ' ').split())} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bool, int, float)) else json.dumps(value)


def _tag(name: str) -> str:
    return re.sub(r"[^-/\w.]", "_", name)
