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
    """A directory of event files; a run that is sent again is written anew, and its older file goes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.root = Path(options["log_dir"])
        self.library: Any = importlib.import_module("tensorboardX")
        self.root.mkdir(parents=True, exist_ok=True)
        self.files: dict[str, list[Path]] = {}  # run -> what was written of it, under whatever name it had then
        for file in self.root.rglob("events.out.tfevents.*"):
            self.files.setdefault(file.name.rpartition(".")[2], []).append(file)

    def open_run(self, record: RunRecord) -> None:
        """Drop what was written of a run, and begin its file."""
        for run in filter(None, (record.id, record.replaces)):
            self._drop(run)
        names = [safe_name(part) for part in record.name.split("/")]
        if "/".join(names) != record.name:  # two names may be the same when they are made safe
            names[-1] += f" {record.id[:8]}"
        directory, suffix = self.root.joinpath(*names), f".{record.id}"
        self.record, self.when, self.last = record, datetime.fromisoformat(record.ended).timestamp(), 0
        self.writer: Any = self.library.SummaryWriter(logdir=str(directory), filename_suffix=suffix)
        self.files[record.id] = list(directory.glob(f"events.out.tfevents.*{suffix}"))

    def log_curve(self, curve: list[dict[str, Any]]) -> None:
        """Log a curve as scalars by step."""
        for row in curve:
            self.last = row["step"]
            for name, value in row.items():
                if name != "step":
                    self.writer.add_scalar(_tag(name), value, row["step"], self.when)

    def log_figures(self, figures: dict[str, float]) -> None:
        """Log figures as scalars at the last step, and with the settings as hyperparameters."""
        named = {_tag(name): value for name, value in figures.items()}
        for name, value in named.items():
            self.writer.add_scalar(name, value, self.last, self.when)
        settings = {name: _plain(value) for name, value in self.record.config.items()}
        settings["outcome"] = self.record.outcome
        for part in importlib.import_module("tensorboardX.summary").hparams(settings, named):
            self.writer.file_writer.add_summary(part, None, self.when)

    def finish(self) -> None:
        """Write outcome, keys and environment as Markdown, and close the file."""
        record = self.record
        rows = {name: getattr(record, name) for name in ("outcome", "message", "started", "ended")}
        rows = {name: value for name, value in rows.items() if value}
        rows |= {f"key of {name}": key for name, key in record.keys.items()} | record.environment
        lines = [f"| {name} | {' '.join(str(value).replace('|', ' ').split())} |" for name, value in rows.items()]
        self.writer.add_text("lorafile", "\n".join(["| | |", "|---|---|", *lines]), self.last, self.when)
        self.writer.close()

    def _drop(self, run: str) -> None:
        for file in self.files.pop(run, []):
            file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # one is not empty
                for directory in takewhile(lambda parent: parent != self.root, file.parents):
                    directory.rmdir()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bool, int, float)) else json.dumps(value)


def _tag(name: str) -> str:
    return re.sub(r"[^-/\w.]", "_", name)
