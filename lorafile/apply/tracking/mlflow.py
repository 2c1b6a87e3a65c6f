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

    def open_run(self, record: RunRecord) -> None:
        """Find or create a run, and give it the parameters that it lacks."""
        self.record, self.ended = record, _milliseconds(record.ended)
        self.run = self._find(record.id) or self.client.create_run(
            self.experiment,
            start_time=_milliseconds(record.started),
            tags={_ID: record.id},
            run_name=record.name,
        )
        params = {_name(name): _text(value)[:_LONGEST_PARAM] for name, value in record.config.items()}
        self._log(params=[self.entities.Param(*item) for item in params.items() if item[0] not in self.run.data.params])

    def log_curve(self, curve: list[dict[str, Any]]) -> None:
        """Log a curve as metrics by step, at the time at which the training ended."""
        self._log(
            metrics=[
                self.entities.Metric(_name(name), value, self.ended, row["step"])
                for row in curve
                for name, value in row.items()
                if name != "step"
            ]
        )

    def log_figures(self, figures: dict[str, float]) -> None:
        """Log the figures that are new or have changed."""
        now, logged = int(time.time() * 1000), self.run.data.metrics
        named = {_name(name): value for name, value in figures.items()}
        changed = {name: value for name, value in named.items() if logged.get(name) != value}
        self._log(metrics=[self.entities.Metric(name, value, now, 0) for name, value in changed.items()])

    def finish(self) -> None:
        """Set tags and status, and mark the run that this one replaces."""
        record = self.record
        tags = {name: getattr(record, name) for name in ("key", "study", "sweep", "outcome", "message", "replaces")}
        tags |= {"configuration": record.group, "keys": record.keys}
        tags |= {f"environment.{name}": value for name, value in record.environment.items()}
        texts = {f"lorafile.{name}": _text(value)[:_LONGEST_TAG] for name, value in tags.items() if value != ""}
        texts = {"mlflow.runName": record.name, _ID: record.id, **texts}
        run = self.run.info.run_id
        self.client.log_batch(run, tags=[self.entities.RunTag(name, value) for name, value in texts.items()])
        self.client.set_terminated(run, "FINISHED" if record.outcome == "done" else "FAILED", self.ended)
        older = self._find(record.replaces) if record.replaces else None
        if older is not None:
            self.client.set_tag(older.info.run_id, "lorafile.replaced_by", record.id)

    def _find(self, name: str) -> Any:
        runs = self.client.search_runs([self.experiment], f"tags.`{_ID}` = '{name}'", max_results=1)
        return runs[0] if runs else None

    def _log(self, **entries: list[Any]) -> None:
        """Log parameters or metrics, as many at once as MLflow takes."""
        for kind, values in entries.items():
            most = _PARAMS if kind == "params" else _METRICS
            for start in range(0, len(values), most):
                self.client.log_batch(self.run.info.run_id, **{kind: values[start : start + most]})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name(name: str) -> str:
    """Return a name of which MLflow takes every character."""
    return re.sub(r"[^\w./ -]", "_", name)


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
