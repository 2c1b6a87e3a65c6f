"""The JSON of a plan: what `lora plan --json` prints and `--out` writes, and what an apply reads back.

`python -m lorafile.plan.document docs/plan.schema.json` writes its JSON schema.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from lorafile.files.digests import file_digest, json_digest
from lorafile.plan.cost import cost_json
from lorafile.plan.plan import WORK, Plan, PlanOptions
from lorafile.plan.training_summary import as_json
from lorafile.specs.values import ONE_LINE

FORMAT_VERSION = "1.0"
Line = Annotated[str, Field(pattern=ONE_LINE, description="One line of text.")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="sha256, 64 hex digits.")]
ActionName = Literal["run", "reuse", "retry", "drift", "blocked", "undeclared"]


class Row(BaseModel):
    """An object of the format: of known fields, read strictly."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ForecastRow(Row):
    """What a node would take; a minor version may say more."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Expected time; missing for the first run of a trainer."
    )
    source: str = Field(description="Source of the time estimate: analytic, or calibrated on measurements.")
    peak_memory_bytes: int | None = Field(
        default=None, description="If a model is loaded: allocated memory, on a CPU resident memory."
    )
    fits: bool | None = Field(default=None, description="Whether it fits on the device, or on that of `--gpu`.")
    seconds_low: float | None = Field(default=None, description="Four of five runs take between this and seconds_high.")
    seconds_high: float | None = None
    reserved_bytes: int | None = Field(default=None, description="Peak memory reserved by the allocator.")
    memory_source: str | None = Field(default=None, description="measured, calibrated, walked, or analytic.")
    would_fit: str | None = Field(default=None, description="The smallest change that would make it fit.")
    disk_bytes: int | None = Field(default=None, description="Size of its result in the state.")
    joules: float | None = Field(default=None, description="Energy, if a profile measured it.")


class CostRow(Row):
    """What all of it would cost."""

    seconds: float = Field(description="Total work. Four of five plans fall between the next two values.")
    seconds_low: float
    seconds_high: float
    clock_seconds: float = Field(description="Time until everything is done, with this machine's workers.")
    device_hours: float = Field(description="Billed time: each GPU's own work, or a processor's clock time.")
    disk_bytes: int
    joules: float | None
    cost: float | None = Field(description="In the currency of --price; null without one.")
    source: str
    parts: dict[str, float] | None = Field(default=None, description="Seconds of training, evaluation and measuring.")
    unknown: int = Field(default=0, description="Nodes without a forecast, which no sum includes.")
    price_per_hour: float | None
    currency: str | None = Field(default=None, description="Currency of --price, as typed; empty if it has none.")


class ChangeRow(Row):
    """One node, in the order in which it would be done."""

    address: Line
    key: Digest | None = Field(description="null if unknown because a model's weights are missing.")
    kind: Literal["prepare", "train", "predict", "score", "profile", "inspect", "truncate", "merge"]
    action: ActionName
    reason: str
    configuration: Line = Field(description="The first configuration that needs it; empty if none does any more.")
    seed: int | None
    forecast: ForecastRow | None = Field(description="Forecast, if it would run.")


class DamageRow(Row):
    """A file of a finished node that is not in the state as it was stored."""

    address: Line
    key: Digest
    file: Line
    digest: Digest
    what: Literal["missing", "damaged"]


class SelectionRow(Row):
    """Which part of the study it is of, and what is done again: patterns of addresses and configurations."""

    target: list[Line]
    exclude: list[Line]
    replace: list[Line]
    rerun_drifted: bool
    refresh: bool
    cluster: Line | None = Field(default=None, description="The cluster it is made for; null: this machine.")
    left_out: int = Field(description="Nodes that would run but are not selected.")


class MadeFrom(Row):
    """What the plan was made from: an apply of the file says which of these has changed."""

    spec: Line = Field(description="The spec's path, as given.")
    spec_digest: Digest = Field(description="Digest of its bytes.")
    lock: dict[Line, Digest] = Field(description="Each model and data set, and the digest of its entry in the lock.")
    device: Line = Field(description="The device class used to look up profiles and drift.")
    reads: dict[Digest, Digest] = Field(
        description="Key of each finished node that planned work reads, and the digest of its files' names and digests."
    )
    again: dict[Digest, Digest] = Field(
        default_factory=dict,
        description="Key of each finished node to rerun, with the digest of its start time and duration.",
    )


class MemoryRow(Row):
    """A device, and what of its memory no run gets."""

    name: Line
    bytes: int
    overhead_bytes: int = Field(description="Memory of the driver and a CUDA context; 0 on a CPU.")


class PlanDocument(Row):
    """A plan of Lorafile: `lora plan --json`, `lora plan --out FILE`."""

    format_version: Literal["1.0"]
    study: Line
    summary: dict[ActionName, int]
    warnings: list[str]
    programs: list[str] = Field(
        default=[],
        description="The user's code that would run: trainers, and functions that initialize adapters, with sha256.",
    )
    changes: list[ChangeRow]
    tuning: list[dict[str, JsonValue]] = Field(description="State of the choice for each tuned configuration.")
    selection: SelectionRow
    damaged: list[DamageRow]
    made_from: MadeFrom
    bill: CostRow
    memory: MemoryRow | None = Field(default=None, description="The memory that `reserved_bytes` is compared with.")
    training: dict[str, list[dict[str, JsonValue]]] | None = Field(
        default=None,
        description="`splits`: rows and rows that are too long, counted or estimated; `runs`: steps, epochs, batch.",
    )
    resolve: dict[str, JsonValue] | None = Field(default=None, description="The stage of seeds planned by --resolve.")
    sensitivity: dict[str, JsonValue] | None = Field(
        default=None,
        description="What the study will be able to conclude: the smallest `difference` that it can detect, the "
        "smallest margin of `equivalence` that it can show, the `variance` behind both, and the result of --detect.",
    )

    @property
    def work(self) -> dict[str, ChangeRow]:
        """Key -> what would be done."""
        return {change.key: change for change in self.changes if change.action in WORK and change.key}


def document(
    plan: Plan, stage: dict[str, Any] | None = None, sensitivity: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a plan as the documented JSON.

    :param stage: the JSON of the stage that `--resolve` has planned
    :param sensitivity: the JSON of what the study will be able to conclude
    """
    owners, unlocked = plan.graph.spec.owners, plan.unlocked
    changes = [
        {
            "address": c.address,
            "key": None if unlocked else c.key,
            "kind": c.kind,
            "action": c.action.value,
            "reason": c.reason,
            "configuration": owners.get(c.configuration, c.configuration),
            "seed": c.seed,
            "forecast": c.forecast,
        }
        for c in plan.changes
    ]
    content = {
        "format_version": FORMAT_VERSION,
        "study": plan.study,
        "summary": plan.summary(),
        "warnings": list(plan.warnings),
        **({"programs": list(plan.programs)} if plan.programs else {}),
        "changes": changes,
        "tuning": _tuning(plan),
        "selection": {**_lists(plan.options), "refresh": plan.refreshed, "left_out": plan.left_out},
        "damaged": [asdict(damage) for damage in plan.damaged],
        "made_from": _made_from(plan),
        "bill": cost_json(plan),
        "memory": _memory(plan),
        "training": as_json(plan) if plan.work else None,
    }
    asked = {"resolve": stage, "sensitivity": sensitivity}
    return content | {name: value for name, value in asked.items() if value is not None}


def text(content: dict[str, Any]) -> str:
    """Return a document as JSON text; what is no finite number is no figure of a plan."""
    return json.dumps(content, indent=2, allow_nan=False)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the format."""
    schema = PlanDocument.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _lists(options: PlanOptions) -> dict[str, Any]:
    named = {name: value for name, value in vars(options).items() if name != "machines"}
    named |= {"cluster": options.machines.cluster} if options.machines and options.machines.cluster else {}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


def _memory(plan: Plan) -> dict[str, Any] | None:
    """Return what forecasts of memory are compared with, as documented JSON."""
    limit = plan.target
    if limit is None:
        return None
    return {"name": limit.name, "bytes": limit.memory, "overhead_bytes": limit.overhead}


def _tuning(plan: Plan) -> list[dict[str, Any]]:
    """Return how the choice of each tuned configuration stands, as documented JSON."""
    return [
        {
            "configuration": status.configuration,
            "tried": {setting: list(values) for setting, values in status.tried.items()},
            "candidates": status.candidates,
            "chosen": status.values if status.chosen else None,
            "reason": status.why_open or status.choice,
            "not_bracketed": [
                {"setting": edge.setting, "value": edge.value, "end": "highest" if edge.highest else "lowest"}
                | {"next": edge.next}
                for edge in status.edges
            ],
            "after_choice": status.later,
        }
        for status in plan.tuning
    ]


def _made_from(plan: Plan) -> dict[str, Any]:
    lock = plan.graph.lock
    entries = {f"model {name}": asdict(entry) for name, entry in lock.models.items()}
    entries |= {f"data {name}": asdict(entry) for name, entry in lock.data.items()}
    work = {change.key for change in plan.work}
    read = {key for change in plan.work for key in plan.graph.nodes[change.key].inputs.values()} - work
    return {
        "spec": str(plan.graph.spec.file),
        "spec_digest": file_digest(plan.graph.spec.file),
        "lock": {name: json_digest(entry, sort_keys=True) for name, entry in entries.items()},
        "device": plan.device,
        "reads": {
            key: json_digest(plan.results[key].outputs, sort_keys=True) for key in sorted(read) if key in plan.results
        },
        "again": {
            key: json_digest([plan.results[key].started, plan.results[key].seconds])
            for key in sorted(work)
            if key in plan.results
        },
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
