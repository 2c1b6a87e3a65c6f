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

    def open_run(self, record: RunRecord) -> None:
        """Begin a run; not in a second in which it was written already: wandb names directories by the second."""
        while any(Path().glob(f"wandb/*run-{time.strftime('%Y%m%d_%H%M%S')}-{record.id}")):
            time.sleep(0.1)
        tags = [record.study, record.sweep, record.method, record.outcome, *self.options["tags"]]
        environment = {f"environment.{name}": value for name, value in record.environment.items()}
        identity = {"key": record.key, "keys": record.keys, "replaces": record.replaces}
        self.record = record
        self.run: Any = self.wandb.init(
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

    def log_curve(self, curve: list[dict[str, Any]]) -> None:
        """Log a curve as history."""
        for row in curve:
            self.run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def log_figures(self, figures: dict[str, float]) -> None:
        """Log figures and outcome as the summary."""
        outcome = {name: getattr(self.record, name) for name in ("outcome", "message", "started", "ended")}
        self.run.summary.update({**figures, **outcome})

    def finish(self) -> None:
        """Finish the run; offline its newest directory has all of it, so older ones that were never synced go."""
        directory, offline = Path(self.run.settings.sync_dir), self.run.settings._offline
        self.run.finish(exit_code=0 if self.record.outcome == "done" else 1)
        pattern = rf"offline-run-\d{{8}}_\d{{6}}-{re.escape(self.record.id)}"
        for older in directory.parent.glob(f"offline-run-*-{self.record.id}") if offline else ():
            if re.fullmatch(pattern, older.name) and older.name < directory.name and not any(older.glob("*.synced")):
                shutil.rmtree(older, ignore_errors=True)

    def close(self) -> None:
        """Let the service that the library has started end."""
        self.wandb.teardown()
