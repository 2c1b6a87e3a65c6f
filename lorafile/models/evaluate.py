"""A checkpoint evaluated with a study's model, data, metrics and protocol; what state has already is not run again."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorafile.apply.applier import Applier
from lorafile.apply.progress import Applied, Progress, stop_on_signals
from lorafile.apply.workers import local_executor
from lorafile.errors import ArgumentError, NodeError
from lorafile.graph.build import add_checkpoint
from lorafile.graph.builder import GraphBuilder
from lorafile.graph.graph import Graph, Replicate
from lorafile.graph.metrics import own_metrics
from lorafile.lock.lockfile import Lock, ModelLock, identity, lock_model, read_lock, resolve
from lorafile.models.checkpoint import Checkpoint, check_fits, open_checkpoint
from lorafile.plan.decide import decide, new_plan
from lorafile.plan.plan import Action, Plan
from lorafile.specs import Configuration, Spec
from lorafile.specs.tables.quantizations import quantization_settings
from lorafile.specs.tables.settings import ModelTable
from lorafile.state import Attempt, State
from lorafile.state.remote.session import locked


@dataclass
class Evaluation:
    """A checkpoint's figures.

    :ivar figures: split -> metric -> value
    :ivar base: the same of the untuned base, as far as state has them
    :ivar profile: cost on this device, or nothing
    """

    checkpoint: Checkpoint
    plan: Plan
    applied: Applied
    figures: dict[str, dict[str, Any]]
    base: dict[str, dict[str, Any]]
    profile: dict[str, Any]
    warnings: list[str]

    @property
    def failed(self) -> list[Attempt]:
        """The attempts that failed."""
        return [attempt for attempt in self.applied.attempts if attempt.outcome != "done"]


def plan_evaluation(
    spec: Spec, state: Path, name: str, splits: tuple[str, ...] = (), profile: bool = True
) -> tuple[Checkpoint, Plan, list[str]]:
    """Return what an evaluation would run: the nodes of a checkpoint, each under the checkpoint's own digest.

    :param name: a directory, or a hub id
    :param splits: test otherwise, or validation where the data have no test split
    :raises NodeError: when it is no checkpoint, or does not fit the study's base
    """
    lock, warnings = resolve(spec, read_lock(spec))
    checkpoint = open_checkpoint(name)
    configuration = _configuration(spec, checkpoint)
    base = spec.tables.model
    if identity(base) not in lock.models:  # every configuration has another one
        lock = Lock({**lock.models, identity(base): lock_model(base, spec.file.parent)}, lock.data)
    warnings += check_fits(checkpoint, lock.models[identity(base)], base.path)
    own = _own_model(checkpoint, lock.models[identity(base)], base)
    section = {"kind": checkpoint.kind, "digest": checkpoint.digest}
    if own is not None:
        table, entry = own
        configuration, section = configuration._replace(model=table), {}
        lock = Lock({**lock.models, identity(table): entry}, lock.data)
    files = {checkpoint.digest: {file: str(path) for file, path in checkpoint.files.items()}}
    alone = replace(spec, configurations=(configuration,))
    builder = GraphBuilder(Graph(alone, lock, own=own_metrics(spec), checkpoints=files))
    scores = _scores(add_checkpoint(builder, configuration, section, profile))
    splits = splits or (("test",) if "test" in scores else ("validation",))
    for split in splits:
        if split not in scores:
            raise ArgumentError(
                "splits", f"the data have no {split} split to evaluate; they have: {', '.join(scores)}."
            )
    keys = [key for split in splits for key in scores[split]]
    graph = builder.graph.restricted([*keys, *builder.graph.profiles.values()])
    plan = decide(new_plan(graph, warnings), State.read(state))
    declared = tuple(change for change in plan.changes if change.action is not Action.UNDECLARED)
    return checkpoint, replace(plan, changes=declared), warnings


def evaluate(
    spec: Spec,
    directory: Path,
    name: str,
    *,
    splits: tuple[str, ...] = (),
    profile: bool = True,
    workers: int | None = None,
    lock_timeout: float = 0.0,
    watchers: list[Progress] | None = None,
) -> Evaluation:
    """Evaluate a checkpoint; what state has already is taken from there."""
    checkpoint, plan, warnings = plan_evaluation(spec, directory, name, splits, profile)
    applied, results = Applied(), dict(plan.results)
    if plan.work:
        with locked(directory, lock_timeout) as session, State.write(directory, lock_timeout) as state:
            executor = local_executor(plan, directory, workers, "auto")
            with stop_on_signals(watchers or []) as stop:
                recorded = session.provenance if session else {}
                applier = Applier(plan, state, executor, stop.watchers, declares=False, stop=stop, recorded=recorded)
                applied, results = applier.run(), applier.results
    graph = plan.graph
    (replicate,) = graph.replicates[graph.spec.configurations[0].name]
    return Evaluation(
        checkpoint,
        plan,
        applied,
        figures=_figures(replicate, {key: results[key] for key in results if key in graph.nodes}),
        base=_base_figures(spec, State.read(directory), graph),
        profile=next((results[key].figures for key in graph.profiles.values() if key in results), {}),
        warnings=warnings,
    )


def _configuration(spec: Spec, checkpoint: Checkpoint) -> Configuration:
    """Return the study's base as a configuration: nothing varied, nothing trained."""
    tables, first = spec.tables, spec.configurations[0]
    return first._replace(
        name=f"evaluate/{checkpoint.directory.resolve().name}-{checkpoint.digest[:8]}",
        sweep="evaluate",
        aliases=(),
        varied={},
        method="none",
        model=tables.model,
        data=tables.data,
        quantization=quantization_settings(tables.quantization),
        adapter=None,
        train=None,
        shots=0,
        tuned=None,
    )


def _own_model(checkpoint: Checkpoint, base: ModelLock, table: ModelTable) -> tuple[ModelTable, ModelLock] | None:
    """Return a whole model with its own tokenizer as a model of its own.

    Without one it is the base's weights, tuned: then it has to be of the base's shape, and takes its tokenizer.
    """
    if checkpoint.kind == "adapter":
        return None
    own = table.model_copy(update={"path": str(checkpoint.directory.resolve()), "revision": None})
    entry = lock_model(own, checkpoint.directory)
    if any(checkpoint.directory.glob("tokenizer*")):
        return own, entry
    if entry.modules != base.modules:
        raise NodeError(
            f"{checkpoint.name} has no tokenizer and a different shape than {table.path}, so it cannot use that "
            "model's tokenizer. Save its tokenizer next to it."
        )
    return None


def _scores(replicate: Replicate) -> dict[str, list[str]]:
    """Return split -> the keys of its scores: of the metrics that ship, and of metric files."""
    keys = {split: [key] for split, key in replicate.score.items()}
    for (split, _), key in replicate.own.items():
        keys.setdefault(split, []).append(key)
    return keys


def _figures(replicate: Replicate, results: dict[str, Attempt]) -> dict[str, dict[str, Any]]:
    """Return split -> metric -> figure of what is scored."""
    figures = {split: dict(results[key].figures) for split, key in replicate.score.items() if key in results}
    for (split, name), key in replicate.own.items():
        if key in results:
            figures.setdefault(split, {})[name] = results[key].figures["figure"]
    return figures


def _base_figures(spec: Spec, state: State, evaluated: Graph) -> dict[str, dict[str, Any]]:
    """Return what state knows of the untuned base on the same splits; nothing is run for it."""
    (configuration,) = evaluated.spec.configurations
    bare = configuration._replace(name="base", model=spec.tables.model)
    alone = replace(evaluated.spec, configurations=(bare,))
    builder = GraphBuilder(Graph(alone, evaluated.lock, own=evaluated.own))
    replicate = add_checkpoint(builder, bare, {}, False)
    history = state.latest(key for keys in _scores(replicate).values() for key in keys)
    done = {key: attempts[-1] for key, attempts in history.items() if attempts[-1].outcome == "done"}
    splits = {node.split for node in evaluated.nodes.values() if node.kind == "score"}
    return {split: figures for split, figures in _figures(replicate, done).items() if split in splits}
