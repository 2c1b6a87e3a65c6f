"""Runs to Weights & Biases: one wandb run for each, sent as a whole; nothing is said of the process that sends."""

import importlib
import re
import shutil
import time
from pathlib import Path
from typing import Any

from lorafile.apply.tracking.tracker import RunRecord, Tracker

_LONGEST_TAG = 64
_SETTINGS = {
    "silent": True,
    "console": "off",
    "init_timeout": 45.0,
    "disable_code": True,
    "disable_git": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class WandbTracker(Tracker):
    """A project of Weights & Biases. A run that it has already goes on: it takes no step a second time."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.wandb: Any = importlib.import_module("wandb")

    def send(self, record: RunRecord) -> None:
        """Send a run, its curve as history, figures and outcome as the summary."""
        run = self._start(record)
        for row in record.curve:
            run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])
        outcome = {name: getattr(record, name) for name in ("outcome", "message", "started", "ended")}
        run.summary.update({**record.figures, **outcome})
        directory, offline = Path(run.settings.sync_dir), run.settings._offline
        run.finish(exit_code=0 if record.outcome == "done" else 1)
        if offline:
            _remove_older(directory, record.id)

    def _start(self, record: RunRecord) -> Any:
        """Begin a run; not in a second in which it was written already: wandb names directories by the second."""
        while any(Path().glob(f"wandb/*run-{time.strftime('%Y%m%d_%H%M%S')}-{record.id}")):
            time.sleep(0.1)
        tags = [record.study, record.sweep, record.method, record.outcome, *self.options["tags"]]
        environment = {f"environment.{name}": value for name, value in record.environment.items()}
        identity = {"key": record.key, "keys": record.keys, "replaces": record.replaces}
        return self.wandb.init(
            **{name: self.options[name] for name in ("project", "entity", "mode")},
            id=record.id,
            name=record.name,
            group=record.group,
            job_type=record.sweep,
            tags=list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags if tag)),
            config={**record.config, **environment, "lorafile": identity},
            resume="allow",
            reinit="create_new",
            settings=self.wandb.Settings(**_SETTINGS),
        )

    def close(self) -> None:
        """Let the service that the library has started end."""
        self.wandb.teardown()


def _remove_older(directory: Path, run: str) -> None:
    """Remove a run's older directories that were never synced: offline the newest one has all of it."""
    pattern = rf"offline-run-\d{{8}}_\d{{6}}-{re.escape(run)}"
    for older in directory.parent.glob(f"offline-run-*-{run}"):
        if re.fullmatch(pattern, older.name) and older.name < directory.name and not any(older.glob("*.synced")):
            shutil.rmtree(older, ignore_errors=True)
