"""Graph and results to what a tracker gets of each run: settings, keys, outcome, figures, curve."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lorafile.apply.tracking.destinations import Sent
from lorafile.apply.tracking.tracker import RunRecord
from lorafile.files.digests import json_digest
from lorafile.graph.graph import Graph, Replicate
from lorafile.lock.lockfile import identity
from lorafile.specs import Configuration
from lorafile.specs.configurations import flatten
from lorafile.specs.tables.quantizations import quantization_name
from lorafile.state import Attempt, Objects

_CURVE = "curve.jsonl.gz"
_FAILURES = ("diverged", "out-of-memory", "failed")
Results = Mapping[str, Attempt]


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

    def has_ended(self, results: Results) -> bool:
        """Return whether its leading node has ended; what is interrupted goes on."""
        return self.key in results and results[self.key].outcome in ("done", *_FAILURES)


def runs_of(graph: Graph) -> list[Run]:
    """Return every run of a study once; what was chosen among candidates has its configuration's name."""
    names = [configuration.name for configuration in graph.spec.configurations]
    runs: dict[str, Run] = {}
    for name in dict.fromkeys([*names, *graph.replicates]):
        for replicate in [*graph.replicates[name], *graph.repeats.get(name, [])]:
            keys = replicate.named
            key = replicate.train or next(iter(replicate.predict.values()), "")
            address = name if replicate.seed is None else f"{name}/seed={replicate.seed}"
            address += f"/repeat={replicate.repeat}" if replicate.repeat > 1 else ""
            if profile := graph.profiles.get(name):
                keys["profile"] = profile
            if key:
                runs.setdefault(key, Run(address, graph.spec.named[name], replicate, keys, key))
    return list(runs.values())


def record_of(graph: Graph, run: Run, results: Results, before: Sent | None) -> tuple[RunRecord, Sent]:
    """Return what a tracker gets of a run, still without its curve, and what to remember when it has it.

    :param before: what the tracker has of it: a curve that differs from that one's is of another training, made again,
        and is a run of its own there
    """
    leading = results[run.key]
    curve = leading.outputs.get(_CURVE, "")
    made_again = bool(before and before.curve and curve and before.curve != curve)
    outcome, message = _outcome(run, results)
    ended = datetime.fromisoformat(leading.started).astimezone(UTC) + timedelta(seconds=leading.seconds)
    record = RunRecord(
        id=before.run if before and not made_again else run.key[:32] + (f"-{curve[:8]}" if made_again else ""),
        replaces=before.run if before and made_again else "",
        name=run.name,
        group=run.configuration.name,
        sweep=run.configuration.sweep,
        study=graph.spec.name,
        method=run.configuration.method,
        config=_config(graph, run),
        key=run.key,
        keys=run.keys,
        outcome=outcome,
        message=message,
        started=leading.started,
        ended=ended.isoformat(),
        environment={name: value for name, value in leading.environment.items() if value is not None},
        figures=dict(_figures(run, results)),
        curve=[],
    )
    content = {name: value for name, value in asdict(record).items() if name not in ("id", "replaces", "curve")}
    digest = json_digest([content, curve], sort_keys=True)
    return record, Sent(record.id, curve or (before.curve if before else ""), digest)


def curve_of(leading: Attempt, objects: Objects) -> list[dict[str, Any]]:
    """Return a row for each optimizer step: `step`, and the figures by the names that transformers logs them under."""
    digest = leading.outputs.get(_CURVE)
    if digest is None or not objects.has(digest):
        return []
    return [
        {"step": row["step"], **{f"train/{name}": value for name, value in row.items() if name != "step"}}
        for row in objects.rows(digest)
    ]


def _outcome(run: Run, results: Results) -> tuple[str, str]:
    """Return how a run ended: as its training did, or as what failed of the rest."""
    leading = results[run.key]
    for name, key in run.keys.items() if leading.outcome == "done" else ():
        attempt = results.get(key)
        if attempt is not None and name != "profile" and attempt.outcome in _FAILURES:
            return attempt.outcome, f"{name}: {attempt.message}"
    return leading.outcome, leading.message


def _config(graph: Graph, run: Run) -> dict[str, Any]:
    """Return the resolved settings of a run, by their dotted names; what is unset is left out."""
    c, sections = run.configuration, graph.sections[run.configuration.name]
    revision = graph.lock.models[identity(c.model)].revision
    adapter = {name: value for name, value in sections["adapter"].items() if name != "method"}
    config: dict[str, Any] = {"sweep": c.sweep, "configuration": c.name, "seed": run.replicate.seed, "method": c.method}
    config |= {"repeat": run.replicate.repeat, "quantization": quantization_name(c.quantization)}
    for name, table in (("model", c.model), ("data", c.data)):
        config |= flatten({name: table.model_dump()})
    config |= flatten(
        {
            "study": {"name": graph.spec.name},
            c.method: {"shots": c.shots} if c.method == "none" else adapter,
            "train": sections.get("training", {}) | ({"trainer": c.train.trainer} if c.train and c.trainer else {}),
            "model": {
                "dtype": sections["model"]["dtype"],
                "revision": c.model.revision if revision is None else revision,
            },
        }
    )
    config |= {f"quantization.{name}": value for name, value in (c.quantization or {}).items()}
    return {name: value for name, value in config.items() if value is not None and value != [] and value != {}}


def _figures(run: Run, results: Results) -> Iterator[tuple[str, float]]:
    """Yield every figure of a run: `train/final_loss`, `test/exact_match`, `profile/train_allocated_bytes`."""
    for name, key in run.keys.items():
        attempt = results.get(key)
        if attempt is None or not attempt.finished or name.startswith("predict/"):
            continue
        if name == "train":
            yield "train/wall_seconds", attempt.seconds
        place = name.replace("truncated to ", "truncate=").replace(": ", "/").replace("score/", "")
        yield from _numbers(place, attempt.figures)


def _numbers(place: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _numbers(f"{place}/{name}", value)
        elif isinstance(value, (int, float)):
            custom = name == "figure"  # of a metric file, whose name its node has
            yield place if custom else f"{place}/{name}", float(value) if isinstance(value, float) else int(value)
