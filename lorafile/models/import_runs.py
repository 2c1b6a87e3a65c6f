"""Finished runs from elsewhere, taken into state as the `train` nodes of a study's configurations."""

import tempfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lorafile.errors import LoraError
from lorafile.files.jsonl import write_lines
from lorafile.graph.graph import GraphNode
from lorafile.lock.lockfile import identity, read_lock, resolve
from lorafile.lock.weights import headers
from lorafile.models.run_matching import Match, choose, choose_seed
from lorafile.models.trainer_output import TrainerRun, read_run
from lorafile.plan.equal_models import build_known
from lorafile.specs import Spec
from lorafile.state import Attempt, Node, State
from lorafile.state.remote.session import locked
from lorafile.units import utc_now

_LAST = 10  # logged losses whose mean is the final loss, as in a run of our own


@dataclass(frozen=True)
class Import:
    """One directory and the node that it becomes.

    :ivar there: it is in the state already, from the same files
    """

    source: str
    node: GraphNode
    run: TrainerRun
    match: Match
    there: bool


def plan_imports(
    spec: Spec,
    state: State,
    sources: list[str],
    configuration: str | None = None,
    seed: int | None = None,
    replace: bool = False,
) -> list[Import]:
    """Return which node each directory becomes; writes nothing.

    :raises LoraError: when one fits no configuration, two are the same, or a node has a result of other bytes
    """
    lock, _ = resolve(spec, read_lock(spec))
    graph = build_known(spec, lock, state)
    imports: dict[str, Import] = {}
    history = state.latest()
    for source in sources:
        run = read_run(source)
        match = choose(run, graph, configuration)
        trained = {replicate.seed: str(replicate.train) for replicate in graph.replicates[match.configuration.name]}
        number, differing = choose_seed(run, [at for at in trained if at is not None], seed)
        match.differs += [differing] if differing else []
        node = graph.nodes[trained[number]]
        if node.key in imports:
            raise LoraError(
                f"{imports[node.key].source} and {source} are both {node.address}. Import them one at a time "
                "and identify them with --configuration and --seed."
            )
        finished = [attempt for attempt in history.get(node.key, []) if attempt.finished]
        there = bool(finished) and finished[-1].figures.get("digest") == run.checkpoint.digest
        if finished and not there and not replace:
            how = "imported from other files" if finished[-1].figures.get("imported") else "trained here"
            raise LoraError(
                f"{node.address} is already finished: it was {how}. To replace it with {source}, pass --replace"
            )
        imports[node.key] = Import(source, node, run, match, there)
    return list(imports.values())


def record_imports(spec: Spec, directory: Path, imports: list[Import], lock_timeout: float = 0.0) -> list[Attempt]:
    """Store what is not there yet as finished training, each marked as imported."""
    new = [item for item in imports if not item.there]
    if not new:
        return []
    with locked(directory, lock_timeout), State.write(directory, lock_timeout) as state:
        recorded = []
        for item in new:
            with tempfile.TemporaryDirectory(prefix="import-", dir=directory) as temporary:
                files = dict(item.run.checkpoint.files)
                if item.run.curve:
                    files["curve.jsonl.gz"] = Path(temporary) / "curve.jsonl.gz"
                    write_lines(files["curve.jsonl.gz"], item.run.curve)
                node = Node(item.node.key, "train", item.node.version, item.node.settings, item.node.inputs)
                recorded.append(state.record(node, _attempt(spec, item), files))
    return recorded


def _attempt(spec: Spec, item: Import) -> Attempt:
    run, peft = item.run, item.run.checkpoint.settings.get("peft_version")
    origin = f"imported from {run.checkpoint.directory}"
    return Attempt(
        key=item.node.key,
        kind="train",
        outcome="diverged" if run.diverged else "done",
        message=f"{origin}; its final loss is not a number" if run.diverged else origin,
        started=utc_now(),
        seconds=0.0,
        device="imported",
        environment={"imported": True, **({"peft": peft} if peft else {})},
        figures=_figures(spec, item),
        study=spec.name,
        address=item.node.address,
    )


def _figures(spec: Spec, item: Import) -> dict[str, Any]:
    """Return what is known of the training; its time is that of another machine, so it is no figure of this study."""
    run, base = item.run, item.match.configuration.model
    lock = (read_lock(spec) or resolve(spec, None)[0]).models[identity(base)]
    weights = [file for name, file in run.checkpoint.files.items() if name.endswith(".safetensors")]
    size = sum(prod(header.shape) for file in weights for header in headers(file).values())
    losses = [row["loss"] for row in run.curve[-_LAST:]]
    adapter = run.checkpoint.kind == "adapter"
    figures: dict[str, Any] = {
        "imported": True,
        "source": str(run.checkpoint.directory.resolve()),
        "digest": run.checkpoint.digest,
        "differs": item.match.differs,
        "unverified": item.match.unverified,
        "trainable_parameters": size,
        "total_parameters": lock.parameters + size if adapter else lock.parameters,
        "adapter_bytes": sum(file.stat().st_size for file in weights),
    }
    figures |= {"steps": run.steps} if run.steps else {}
    figures |= {"final_loss": sum(losses) / len(losses)} if losses else {}
    return figures | ({"train_runtime": run.seconds} if run.seconds else {})
