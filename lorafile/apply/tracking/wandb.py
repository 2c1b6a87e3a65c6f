"""Runs to Weights & Biases: one wandb run for each, told as a whole; nothing is said of the process that sends."""

import importlib
import re
import shutil
import time
from pathlib import Path
from typing import Any

_INIT_SECONDS = 45.0
_LONGEST_TAG = 64


class Wandb:
    """A project of Weights & Biases."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.wandb: Any = importlib.import_module("wandb")

    def send(self, record: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        """Let the project have a run. One that it has already goes on: it takes no step a second time."""
        run = self._begin(record)
        for row in curve:
            run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])
        told = {name: record[name] for name in ("outcome", "message", "started", "ended")}
        run.summary.update({**record["figures"], **told})
        directory = Path(run.settings.sync_dir)
        run.finish(exit_code=0 if record["outcome"] == "done" else 1)
        if run.settings._offline:
            _drop_older(directory, record["id"])

    def close(self) -> None:
        """Let the service that the library has started end."""
        self.wandb.teardown()

    def _begin(self, record: dict[str, Any]) -> Any:
        about = {"key": record["key"], "keys": record["keys"], "replaces": record["replaces"]}
        where = {f"environment.{name}": value for name, value in record["environment"].items()}
        tags = [record["study"], record["sweep"], record["method"], record["outcome"], *self.options["tags"]]
        _wait_for_another_second(record["id"])
        return self.wandb.init(
            project=self.options["project"],
            entity=self.options["entity"],
            mode=self.options["mode"],
            id=record["id"],
            name=record["name"],
            group=record["group"],
            job_type=record["sweep"],
            tags=list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags if tag)),
            config={**record["config"], **where, "lorafile": about},
            resume="allow",
            reinit="create_new",
            settings=self.wandb.Settings(
                silent=True,
                console="off",
                init_timeout=_INIT_SECONDS,
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )


def _wait_for_another_second(run: str) -> None:
    """Wait where this run was written in this very second: wandb names its directories by the second."""
    while any(Path().glob(f"wandb/*run-{time.strftime('%Y%m%d_%H%M%S')}-{run}")):
        time.sleep(0.1)


def _drop_older(directory: Path, run: str) -> None:
    """Drop what was written of a run before and never synced: the newest directory holds all of it."""
    for older in directory.parent.glob(f"offline-run-*-{run}"):
        named = re.fullmatch(rf"offline-run-\d{{8}}_\d{{6}}-{re.escape(run)}", older.name)
        if named and older.name < directory.name and not any(older.glob("*.synced")):
            shutil.rmtree(older, ignore_errors=True)


def open_tracker(options: dict[str, Any]) -> Wandb:
    """Return the tracker that a process sends to."""
    return Wandb(options)
