"""Where a spec's trackers are, by the spec, the libraries' own environment variables and defaults; what each has."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorafile.errors import install_command
from lorafile.files.digests import json_digest
from lorafile.specs import Spec
from lorafile.specs.tables.tracking import MlflowTable, TensorboardTable, TrackerName, WandbTable

_LIBRARIES = {"wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboardX"}
_SQLITE = "sqlite:///"
_LONGEST = 120  # characters of a directory's name; file systems take 255 bytes


@dataclass(frozen=True)
class Destination:
    """One tracker of a study.

    :ivar options: what its library is asked for; no secret is in it
    :ivar label: the same in a word or two
    :ivar folder: what its relative paths are relative to: where the spec stands
    :ivar local: the file or directory that holds it, where that is on this machine
    """

    tracker: TrackerName
    options: dict[str, Any]
    label: str
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
        return json_digest([self.tracker, place], sort_keys=True)


def missing_libraries(spec: Spec) -> list[str]:
    """Say of each tracker of a spec whose library is not installed what to install."""
    return [
        f"tracking: {tracker} is not installed here, so nothing is sent to it. Install it with: "
        f"{install_command(tracker)}"
        for tracker in spec.tables.tracking.trackers
        if not _is_installed(tracker)
    ]


def destinations(spec: Spec, environ: Mapping[str, str] = os.environ) -> list[Destination]:
    """Return every tracker of a spec that is installed and not disabled."""
    makers = {"wandb": _wandb, "mlflow": _mlflow, "tensorboard": _tensorboard}
    installed = filter(_is_installed, spec.tables.tracking.trackers)
    places = [makers[tracker](spec, spec.file.resolve().parent, environ) for tracker in installed]
    return [place for place in places if place.options.get("mode") != "disabled"]


def _is_installed(tracker: str) -> bool:
    return find_spec(_LIBRARIES[tracker]) is not None


def _wandb(spec: Spec, folder: Path, environ: Mapping[str, str]) -> Destination:
    table = spec.tables.tracking.wandb or WandbTable()
    options = {
        "project": table.project or re.sub(r"[/\\#?%:]", "-", spec.name)[:128],
        "entity": table.entity or environ.get("WANDB_ENTITY"),
        "mode": table.mode or environ.get("WANDB_MODE") or "online",
        "server": environ.get("WANDB_BASE_URL"),
        "tags": table.tags,
    }
    return Destination("wandb", options, f"project {options['project']}, {options['mode']}", folder)


def _mlflow(spec: Spec, folder: Path, environ: Mapping[str, str]) -> Destination:
    table = spec.tables.tracking.mlflow or MlflowTable()
    uri = table.tracking_uri or environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    local = None
    if uri.startswith(_SQLITE) and uri != _SQLITE:
        local = folder / uri.removeprefix(_SQLITE)
        uri = f"{_SQLITE}{local}"
    options = {"tracking_uri": uri, "experiment_name": table.experiment_name or spec.name}
    return Destination("mlflow", options, f"experiment {options['experiment_name']}", folder, local)


def _tensorboard(spec: Spec, folder: Path, _environ: Mapping[str, str]) -> Destination:
    table = spec.tables.tracking.tensorboard or TensorboardTable()
    local = folder / Path(table.log_dir).expanduser() / safe_name(spec.name)
    return Destination(
        "tensorboard", {"log_dir": str(local)}, str(Path(table.log_dir) / safe_name(spec.name)), folder, local
    )


def safe_name(name: str) -> str:
    """Return a name as one directory may be called: no separator, nothing hidden, nothing that leads elsewhere."""
    plain = re.sub(r"[^\w=,.+ -]", "_", name).strip(" .")
    return plain[:_LONGEST] or "_"


@dataclass(frozen=True)
class Sent:
    """What a tracker has of one run.

    :ivar run: the id that it has there; `curve`: digest of the curve that was sent, empty where there was none
    :ivar digest: of everything that was sent of it
    """

    run: str
    curve: str
    digest: str


class SentLog:
    """What a destination has: a line for each sending, in the state, so that nothing is sent twice or forgotten.

    A line that is torn or damaged is a run that is sent again, to the same place.
    """

    def __init__(self, state: Path, destination: Destination) -> None:
        self.file = state / "tracking" / f"{destination.tracker}.jsonl"
        self._place = destination.identity(state)
        gone = destination.local is not None and not destination.local.exists()
        self._sent = {} if gone else _read(self.file, self._place)

    def get(self, key: str) -> Sent | None:
        """Return what the tracker has of the run that this key leads; None where it has nothing."""
        return self._sent.get(key)

    def add(self, key: str, sent: Sent) -> None:
        """Remember that the tracker has said that it has a run."""
        self._sent[key] = sent
        self.file.parent.mkdir(exist_ok=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"to": self._place, "key": key, **asdict(sent)}) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _read(file: Path, place: str) -> dict[str, Sent]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return {}
    sent: dict[str, Sent] = {}
    for line in filter(None, lines):
        try:
            row = json.loads(line)
            if row["to"] == place:
                sent[str(row["key"])] = Sent(str(row["run"]), str(row["curve"]), str(row["digest"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return sent
