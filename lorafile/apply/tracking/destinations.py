"""Where a spec's trackers are: what it says, what the libraries' own environment variables say, and defaults."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorafile.apply.tracking.libraries import LIBRARIES
from lorafile.specs import Spec
from lorafile.specs.tables.tracking import TrackerName

_SQLITE = "sqlite:///"
_LONGEST = 120  # characters of a directory's name; file systems take 255 bytes


@dataclass(frozen=True)
class Destination:
    """One tracker of a study.

    :ivar options: what its library is asked for; no secret is in it
    :ivar where: the same in a word or two
    :ivar folder: what its relative paths are relative to: where the spec stands
    :ivar local: the file or directory that holds it, where that is on this machine
    """

    tracker: TrackerName
    options: dict[str, Any]
    where: str
    folder: Path
    local: Path | None = None

    def identity(self, state: Path) -> str:
        """Return equal text for what is one place, also where study, state and place were moved together.

        It is a digest, because an address from the environment may hold a password.
        """
        place: dict[str, Any] = {name: value for name, value in self.options.items() if name != "tags"}
        here = self.local or (self.folder if place.get("mode") == "offline" else None)
        if here is not None:
            place |= {"log_dir": "", "tracking_uri": "", "at": os.path.relpath(here, state.resolve())}
        return hashlib.sha256(json.dumps([self.tracker, place], sort_keys=True).encode()).hexdigest()


def destinations(spec: Spec, environ: Mapping[str, str] = os.environ) -> list[Destination]:
    """Return every tracker of a spec that is installed."""
    makers = {"wandb": _wandb, "mlflow": _mlflow, "tensorboard": _tensorboard}
    installed = [name for name in spec.tables.tracking.trackers if find_spec(LIBRARIES[name]) is not None]
    found = [makers[name](spec, spec.file.resolve().parent, environ) for name in installed]
    return [one for one in found if one.options.get("mode") != "disabled"]


def _wandb(spec: Spec, folder: Path, environ: Mapping[str, str]) -> Destination:
    table = spec.tables.tracking.wandb
    project = (table and table.project) or re.sub(r"[/\\#?%:]", "-", spec.name)[:128]
    options = {
        "project": project,
        "entity": (table and table.entity) or environ.get("WANDB_ENTITY"),
        "mode": (table and table.mode) or environ.get("WANDB_MODE") or "online",
        "server": environ.get("WANDB_BASE_URL"),
        "tags": table.tags if table else [],
    }
    return Destination("wandb", options, f"project {project}, {options['mode']}", folder)


def _mlflow(spec: Spec, folder: Path, environ: Mapping[str, str]) -> Destination:
    table = spec.tables.tracking.mlflow
    uri = (table and table.tracking_uri) or environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    local = None
    if uri.startswith(_SQLITE) and uri != _SQLITE:
        local = folder / uri.removeprefix(_SQLITE)
        uri = f"{_SQLITE}{local}"
    experiment = (table and table.experiment_name) or spec.name
    options = {"tracking_uri": uri, "experiment_name": experiment}
    return Destination("mlflow", options, f"experiment {experiment}", folder, local)


def _tensorboard(spec: Spec, folder: Path, _environ: Mapping[str, str]) -> Destination:
    table = spec.tables.tracking.tensorboard
    named = table.log_dir if table else "runs"
    local = folder / Path(named).expanduser() / safe(spec.name)
    return Destination("tensorboard", {"log_dir": str(local)}, str(Path(named) / safe(spec.name)), folder, local)


def safe(name: str) -> str:
    """Return a name as one directory may be called: no separator, nothing hidden, nothing that leads elsewhere."""
    plain = re.sub(r"[^\w=,.+ -]", "_", name).strip(" .")
    return plain[:_LONGEST] or "_"
