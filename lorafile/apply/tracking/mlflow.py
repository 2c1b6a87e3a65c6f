"""Runs to MLflow: settings as parameters, curve and figures as metrics, names, keys and outcome as tags."""

import importlib
import json
import re
import time
from datetime import datetime
from typing import Any

from lorafile.apply.tracking.tracker import RunRecord, Tracker

_METRICS, _PARAMS = 1000, 100  # that MLflow takes at once
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000  # characters
_ID = "lorafile.run"


class MlflowTracker(Tracker):
    """An experiment of MLflow. A run that it has already gets what is new, and no step a second time."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.entities: Any = importlib.import_module("mlflow.entities")
        self.client: Any = importlib.import_module("mlflow").MlflowClient(tracking_uri=options["tracking_uri"])
        experiment = self.client.get_experiment_by_name(options["experiment_name"])
        self.experiment = (
            experiment.experiment_id if experiment else self.client.create_experiment(options["experiment_name"])
        )

    def send(self, record: RunRecord) -> None:
        """Log settings and figures that are new or have changed, and the curve at the time at which training ended."""
        ended, now = _milliseconds(record.ended), int(time.time() * 1000)
        run = self._find(record.id) or self.client.create_run(
            self.experiment,
            start_time=_milliseconds(record.started),
            tags={_ID: record.id},
            run_name=record.name,
        )
        params = {_name(name): _text(value)[:_LONGEST_PARAM] for name, value in record.config.items()}
        missing = [self.entities.Param(*item) for item in params.items() if item[0] not in run.data.params]
        curve = [
            self.entities.Metric(_name(name), value, ended, row["step"])
            for row in record.curve
            for name, value in row.items()
            if name != "step"
        ]
        figures = {_name(name): value for name, value in record.figures.items()}
        changed = {name: value for name, value in figures.items() if run.data.metrics.get(name) != value}
        self._log(run, _PARAMS, params=missing)
        self._log(run, _METRICS, metrics=curve)
        self._log(run, _METRICS, metrics=[self.entities.Metric(*item, now, 0) for item in changed.items()])
        self._finish(run.info.run_id, record, ended)

    def _finish(self, run: str, record: RunRecord, ended: int) -> None:
        """Set tags and status, and mark the run that this one replaces."""
        tags = {name: getattr(record, name) for name in ("key", "study", "sweep", "outcome", "message", "replaces")}
        tags |= {"configuration": record.group, "keys": record.keys}
        tags |= {f"environment.{name}": value for name, value in record.environment.items()}
        texts = {f"lorafile.{name}": _text(value)[:_LONGEST_TAG] for name, value in tags.items() if value != ""}
        texts = {"mlflow.runName": record.name, _ID: record.id, **texts}
        self.client.log_batch(run, tags=[self.entities.RunTag(name, value) for name, value in texts.items()])
        self.client.set_terminated(run, "FINISHED" if record.outcome == "done" else "FAILED", ended)
        older = self._find(record.replaces) if record.replaces else None
        if older is not None:
            self.client.set_tag(older.info.run_id, "lorafile.replaced_by", record.id)

    def _find(self, name: str) -> Any:
        runs = self.client.search_runs([self.experiment], f"tags.`{_ID}` = '{name}'", max_results=1)
        return runs[0] if runs else None

    def _log(self, run: Any, most: int, **entries: list[Any]) -> None:
        """Log parameters or metrics, as many at once as MLflow takes."""
        for kind, values in entries.items():
            for start in range(0, len(values), most):
                self.client.log_batch(run.info.run_id, **{kind: values[start : start + most]})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name(name: str) -> str:
    """Return a name of which MLflow takes every character."""
    return re.sub(r"[^\w./ -]", "_", name)


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
