"""Runs to MLflow: settings as parameters, curve and figures as metrics, names, keys and outcome as tags."""

import importlib
import json
import re
import time
from datetime import datetime
from typing import Any

_METRICS, _PARAMS = 1000, 100  # that MLflow takes at once
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000  # characters
_OURS = "lorafile.run"


class Mlflow:
    """An experiment of MLflow."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.entities: Any = importlib.import_module("mlflow.entities")
        self.client: Any = importlib.import_module("mlflow").MlflowClient(tracking_uri=options["tracking_uri"])
        known = self.client.get_experiment_by_name(options["experiment_name"])
        self.experiment = known.experiment_id if known else self.client.create_experiment(options["experiment_name"])

    def send(self, record: dict[str, Any], curve: list[dict[str, Any]]) -> None:
        """Let the experiment have a run; one that it has already gets what is new, and no step a second time."""
        ended = _milliseconds(record["ended"])
        found = self._find(record["id"])
        if found is None:
            tags = {_OURS: record["id"]}
            found = self.client.create_run(
                self.experiment, start_time=_milliseconds(record["started"]), tags=tags, run_name=record["name"]
            )
        run, data = found.info.run_id, found.data
        params = {_name(name): _text(value)[:_LONGEST_PARAM] for name, value in record["config"].items()}
        new = [self.entities.Param(name, value) for name, value in params.items() if name not in data.params]
        figures = {_name(name): value for name, value in record["figures"].items()}
        now = int(time.time() * 1000)
        metric = self.entities.Metric
        changed = [metric(name, value, now, 0) for name, value in figures.items() if data.metrics.get(name) != value]
        steps = (
            metric(_name(name), value, ended, row["step"])
            for row in curve
            for name, value in row.items()
            if name != "step"
        )
        for some in _parts(new, _PARAMS):
            self.client.log_batch(run, params=some)
        for some in _parts([*steps, *changed], _METRICS):
            self.client.log_batch(run, metrics=some)
        self.client.log_batch(run, tags=[self.entities.RunTag(name, value) for name, value in _tags(record).items()])
        self.client.set_terminated(run, "FINISHED" if record["outcome"] == "done" else "FAILED", ended)
        older = self._find(record["replaces"]) if record["replaces"] else None
        if older is not None:
            self.client.set_tag(older.info.run_id, "lorafile.replaced_by", record["id"])

    def close(self) -> None:
        """Nothing is open."""

    def _find(self, name: str) -> Any:
        found = self.client.search_runs([self.experiment], f"tags.`{_OURS}` = '{name}'", max_results=1)
        return found[0] if found else None


def _tags(record: dict[str, Any]) -> dict[str, str]:
    told = {name: record[name] for name in ("key", "study", "sweep", "outcome", "message", "replaces")}
    told |= {"configuration": record["group"], "keys": record["keys"]}
    told |= {f"environment.{name}": value for name, value in record["environment"].items()}
    tags = {f"lorafile.{name}": _text(value)[:_LONGEST_TAG] for name, value in told.items() if value != ""}
    return {"mlflow.runName": record["name"], _OURS: record["id"], **tags}


def _parts(whole: list[Any], most: int) -> list[list[Any]]:
    return [whole[start : start + most] for start in range(0, len(whole), most)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _name(name: str) -> str:
    """Return a name of which MLflow takes every character."""
    return re.sub(r"[^\w./ -]", "_", name)


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def open_tracker(options: dict[str, Any]) -> Mlflow:
    """Return the tracker that a process sends to."""
    return Mlflow(options)
