"""Graph and results to what a tracker is told of each run: settings, keys, outcome, figures, curve."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lorafile.apply.tracking.sent_log import Sent
from lorafile.graph.graph import Graph, Replicate
from lorafile.lock.lockfile import identity
from lorafile.specs import Configuration
from lorafile.specs.configurations import flatten
from lorafile.specs.tables.quantizations import quantization_name
from lorafile.state import Attempt
from lorafile.state.objects import Objects

CURVE = "curve.jsonl.gz"
ENDED = ("done", "diverged", "out-of-memory", "failed")  # what is interrupted goes on
Held = Mapping[str, Attempt]
Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run of a study, as a tracker has it: a replicate that is trained, or a row of the untuned model.

    :ivar name: its address: `rank/r=16/seed=42`
    :ivar keys: node -> key; `key` leads: that of its training, or of its first prediction
    """

    name: str
    configuration: Configuration
    replicate: Replicate
    keys: dict[str, str]
    key: str


def runs_of(graph: Graph) -> list[Run]:
    """Return every run of a study once; what was chosen among candidates has its configuration's name."""
    names = [configuration.name for configuration in graph.spec.configurations]
    names += [name for name in graph.replicates if name not in names]
    found: dict[str, Run] = {}
    for name in names:
        for replicate in [*graph.replicates[name], *graph.repeats.get(name, [])]:
            keys = replicate.named
            key = replicate.train or next(iter(replicate.predict.values()), "")
            address = name if replicate.seed is None else f"{name}/seed={replicate.seed}"
            address += f"/repeat={replicate.repeat}" if replicate.repeat > 1 else ""
            if profile := graph.profiles.get(name):
                keys["profile"] = profile
            if key:
                found.setdefault(key, Run(address, graph.spec.named[name], replicate, keys, key))
    return list(found.values())


def record_of(graph: Graph, run: Run, results: Held, before: Sent | None) -> tuple[Record, Sent]:
    """Return what a tracker is told of a run, without its curve, and what is remembered when it has it.

    :param before: what the tracker has of it: a curve that differs from that one's is of another training, made again,
        and is a run of its own there
    """
    leading = results[run.key]
    curve = leading.outputs.get(CURVE, "")
    made_again = bool(before and before.curve and curve and before.curve != curve)
    name = before.run if before and not made_again else f"{run.key[:32]}-{curve[:8]}" if made_again else run.key[:32]
    outcome, message = _outcome(run, results)
    ended = datetime.fromisoformat(leading.started).astimezone(UTC) + timedelta(seconds=leading.seconds)
    record: Record = {
        "id": name,
        "replaces": before.run if before and made_again else "",
        "name": run.name,
        "group": run.configuration.name,
        "sweep": run.configuration.sweep,
        "study": graph.spec.name,
        "method": run.configuration.method,
        "config": _config(graph, run),
        "key": run.key,
        "keys": run.keys,
        "outcome": outcome,
        "message": message,
        "started": leading.started,
        "ended": ended.isoformat(),
        "environment": {name: value for name, value in leading.environment.items() if value is not None},
        "figures": dict(_figures(run, results)),
    }
    content = {name: value for name, value in record.items() if name not in ("id", "replaces")}
    told = json.dumps([content, curve], sort_keys=True).encode()
    return record, Sent(name, curve or (before.curve if before else ""), hashlib.sha256(told).hexdigest())


def curve_of(leading: Attempt, objects: Objects) -> list[dict[str, Any]]:
    """Return a row for each optimizer step: `step`, and the figures by the names that transformers logs them under."""
    digest = leading.outputs.get(CURVE)
    if digest is None or not objects.has(digest):
        return []
    return [
        {"step": row["step"], **{f"train/{name}": value for name, value in row.items() if name != "step"}}
        for row in objects.rows(digest)
    ]


def _outcome(run: Run, results: Held) -> tuple[str, str]:
    """Return how a run ended: as its training did, or as what failed of the rest."""
    leading = results[run.key]
    if leading.outcome != "done":
        return leading.outcome, leading.message
    for name, key in run.keys.items():
        attempt = results.get(key)
        if attempt is not None and name != "profile" and attempt.outcome in ENDED[1:]:
            return attempt.outcome, f"{name}: {attempt.message}"
    return "done", leading.message


def _config(graph: Graph, run: Run) -> dict[str, Any]:
    """Return the resolved settings of a run, by their dotted names; what is unset is left out."""
    c, sections = run.configuration, graph.sections[run.configuration.name]
    lock = graph.lock.models[identity(c.model)]
    revision = c.model.revision if lock.revision is None else lock.revision
    own = {name: value for name, value in sections["adapter"].items() if name != "method"}
    tables = {
        "study": {"name": graph.spec.name},
        c.method: {"shots": c.shots} if c.method == "none" else own,
        "train": sections.get("training", {}),
        "model": {"dtype": sections["model"]["dtype"], "revision": revision},
    }
    found: dict[str, Any] = {"sweep": c.sweep, "configuration": c.name, "seed": run.replicate.seed, "method": c.method}
    found |= {"repeat": run.replicate.repeat, "quantization": quantization_name(c.quantization)}
    for name, table in (("model", c.model), ("data", c.data)):  # which configurations share
        found |= flatten({name: table.model_dump()})
    found |= flatten(tables)
    found |= {f"quantization.{name}": value for name, value in (c.quantization or {}).items()}
    return {name: value for name, value in found.items() if value is not None and value != [] and value != {}}


def _figures(run: Run, results: Held) -> Iterator[tuple[str, float]]:
    """Yield every figure of a run: `train/final_loss`, `test/exact_match`, `profile/train_allocated_bytes`."""
    for name, key in run.keys.items():
        attempt = results.get(key)
        if attempt is None or not attempt.finished or name.startswith("predict/"):
            continue
        place = name.replace("truncated to ", "truncate=").replace(": ", "/").replace("score/", "")
        if name == "train":
            yield "train/wall_seconds", attempt.seconds
        yield from _numbers(place, attempt.figures)


def _numbers(place: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{place}/{name}", value)
        elif isinstance(value, (int, float)):
            own = name == "figure"  # of a metric file, whose name its node has
            yield place if own else f"{place}/{name}", float(value) if isinstance(value, float) else int(value)
